"""How a teacher is run: its weights' precision, and where they lie meanwhile."""

from __future__ import annotations

from typing import Literal

from lkd_tune.config.settings.base import Settings


class Inference(Settings):
    """How a model is run that is not trained."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the weights while it runs; bf16 takes half the memory. auto: fp32, but where it runs in
    each trial it computes in bf16 if the student does."""
    placement: Literal["device", "cpu", "sharded"] = "device"
    """Where the weights lie while it runs. `cpu`: in the host's memory, once for each worker; they
    are brought to the GPU when their turn comes. `sharded`: on the GPUs of a trial's workers, a
    share on each (ZeRO-3); where one process runs it, as for stored targets, as with `cpu`."""

    @property
    def is_plain(self) -> bool:
        """Whether a model is run as it was loaded, in fp32 and all on the device."""
        return self.precision != "bf16" and self.placement == "device"


PLAIN = Inference()
