"""The cost of a distillation: parameters, memory and energy."""

from __future__ import annotations

import math
from typing import Any

import psutil
import torch

from lkd_tune.runtime.process_group import all_reduce_sum, device


def count_parameters(model: Any) -> int:
    """Returns the number of a model's parameters, embeddings included; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


class PeakMemory:
    """The peak memory of this process from now on: GPU memory if there is a GPU.

    On a CPU, and for the host, it is the largest resident memory seen by `sample`, which is best
    called while activations are alive. (The kernel's own peak covers all trials of this process.)
    """

    def __init__(self) -> None:
        self._peak = 0
        self._process = psutil.Process()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def sample(self) -> None:
        """Takes the resident memory of now into account."""
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
    """The energy that this process's GPU has used since this object was made, from NVML's counter.

    The counter covers the whole device, including other processes.

    Args:
        before: Joules of earlier parts of the trial.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._handle = _nvml_device()
        self._before, self._start = before, self._counter()

    def joules(self) -> float | None:
        """Returns the energy so far in joules, None if NVML has no counter."""
        now = self._counter()
        return None if now is None or self._start is None else self._before + now - self._start

    def of_all_workers(self) -> float | None:
        """Returns the sum over all ranks in joules, None if NVML has no counter."""
        joules = self.joules()
        own = torch.tensor([math.nan if joules is None else joules], dtype=torch.float64)
        total = float(all_reduce_sum(own.to(device())))
        return total if math.isfinite(total) else None

    def _counter(self) -> float | None:
        import pynvml

        if self._handle is None:
            return None
        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        except pynvml.NVMLError:  # older GPUs and MIG instances have no counter
            return None


def _nvml_device() -> Any:
    """Returns NVML's handle of this process's GPU, None if there is none."""
    import pynvml

    if not torch.cuda.is_available():
        return None
    try:
        pynvml.nvmlInit()
        # By UUID: NVML numbers all GPUs of the machine, CUDA those that this process may see.
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    except pynvml.NVMLError:
        return None
