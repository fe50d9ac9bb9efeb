"""Settings of what a trial gets of a cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings


def trials_on_a_gpu(gpus: float) -> int:
    """Returns how many trials run on one GPU, each with a share of it (or all)."""
    return int(1 / gpus + 1e-9)


class ResourceSettings(Settings):
    """What one trial gets."""

    workers: int = Field(1, ge=1)
    """Processes that train one student together, one GPU each where there are GPUs."""
    cpus: float = Field(1, gt=0)
    """CPU cores per worker."""
    gpus: float = Field(0, ge=0, le=1)
    """GPUs per worker; a share lets trials of one worker share a GPU, each with that share of its
    memory after 1 GiB for each that CUDA and its libraries take."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 1 shards optimizer states, 2 gradients too, 3 parameters too."""

    @model_validator(mode="after")
    def _check(self) -> ResourceSettings:
        if self.workers > 1 and self.gpus not in (0, 1):
            raise ValueError(f"{self.workers} workers need a GPU each (gpus: 1), or none (gpus: 0)")
        return self
