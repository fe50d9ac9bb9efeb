"""The memory that a model takes on the host, each measured in a process of its own."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.models.size import LARGE_BATCH, fitting_length

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class HostMemory:
    """Resident memory of a process that loads a model and runs one batch, in MB (10⁶ bytes).

    Attributes:
        peak_mb: The most there was.
        libraries_mb: What Python, PyTorch and transformers alone took before.
    """

    peak_mb: float
    libraries_mb: float


def measure_memory(models: Sequence[str], head: str, length: int) -> list[HostMemory]:
    """Returns the memory for loading each model on the CPU and running 32 examples.

    A process of its own each: one that has held another model already hides what this one takes.

    Args:
        models: Folders or hub ids.
        head: As in transformers' AutoModelFor….
        length: Tokens of each example, or what a model has positions for if that is less.

    Raises:
        SpecError: If a process ends before its model has run.
    """
    # Side by side: they take seconds to start, and memory of one is no memory of the other.
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "lkd_tune.models.memory", model, head, str(length)],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for model in models
    ]
    ended = [(*process.communicate(), process.returncode) for process in started]
    found = []
    for model, (out, err, code) in zip(models, ended, strict=True):
        if code != 0:
            said = err.strip().splitlines()[-1] if err.strip() else f"exit code {code}"
            message = f"its memory can't be measured: {said}"
            raise SpecError(Problem(model, "", message))
        peak, libraries = (float(word) / 1e6 for word in out.split()[-2:])
        found.append(HostMemory(peak, libraries))
    return found


def _measure_here(model: str, head: str, length: int) -> tuple[int, int]:
    """Returns peak and libraries' bytes of this process; see `HostMemory`."""
    import torch

    from lkd_tune.models.loading import auto_model, load_config, load_model

    config = load_config(model)
    with torch.device("meta"):
        auto_model(head).from_config(config)  # imports the code of its family, without weights
    libraries = _resident("VmRSS")
    loaded = load_model(model, head)
    # From all over the vocabulary: an embedding that no text has asked for yet stays on disk.
    shape = (LARGE_BATCH, fitting_length(config, length))
    ids = torch.linspace(0, config.vocab_size - 1, math.prod(shape)).long().reshape(shape)
    with torch.inference_mode():
        loaded(input_ids=ids, attention_mask=torch.ones_like(ids))
    return _resident("VmHWM"), libraries


def _resident(entry: str) -> int:
    """Returns VmRSS (now) or VmHWM (the most so far) of this process in bytes.

    Not getrusage's ru_maxrss: that begins with what the parent had when it started this process.
    """
    found = re.search(rf"^{entry}:\s+(\d+) kB$", _STATUS.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    print(*_measure_here(sys.argv[1], sys.argv[2], int(sys.argv[3])))
