"""What a distillation costs: parameters, memory and energy."""

from __future__ import annotations

import math
from typing import Any

import psutil
import torch

from lkd_tune.runtime.process_group import device, summed


def count_parameters(model: Any) -> int:
    """Returns the number of a model's parameters, embeddings included, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


class PeakMemory:
    """The largest memory of this process from here on: GPU memory where there is a GPU.

    On a CPU, and of the host, it is resident memory at the moments of `sample`, best called where
    activations are alive. (The kernel's own peak would be that of all trials this process has run.)
    """

    def __init__(self) -> None:
        self._peak = 0
        self._process = psutil.Process()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def sample(self) -> None:
        """Looks at the memory now."""
        self._peak = max(self._peak, self._process.memory_info().rss)

    @property
    def gib(self) -> float:
        """The peak so far in GiB."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**30
        return self.host_gib

    @property
    def host_gib(self) -> float:
        """The peak of resident memory on the host so far in GiB."""
        return self._peak / 2**30


class GpuEnergy:
    """Joules that this process's GPU has taken since this was made, by NVML's own counter.

    The counter is the whole device's, with all that runs on it.

    Args:
        before: Joules of an earlier part of the trial.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._handle = _nvml_device()
        self._before, self._began = before, self._counter()

    def joules(self) -> float | None:
        """Returns the energy so far, None where NVML gives none."""
        now = self._counter()
        return None if now is None or self._began is None else self._before + now - self._began

    def of_all_workers(self) -> float | None:
        """Returns the sum over all ranks, None where NVML gives none."""
        joules = self.joules()
        own = torch.tensor([math.nan if joules is None else joules], dtype=torch.float64)
        total = float(summed(own.to(device())))
        return total if math.isfinite(total) else None

    def _counter(self) -> float | None:
        import pynvml

        if self._handle is None:
            return None
        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        except pynvml.NVMLError:  # older GPUs and parts of one (MIG) have no counter
            return None


def _nvml_device() -> Any:
    """Returns NVML's handle of the GPU that this process trains on, None if there is none."""
    import pynvml

    if not torch.cuda.is_available():
        return None
    try:
        pynvml.nvmlInit()
        # By name: NVML numbers the machine's GPUs, CUDA those that this process may see.
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    except pynvml.NVMLError:
        return None
