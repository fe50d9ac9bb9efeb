"""What a distillation costs: parameters and memory."""

from __future__ import annotations

from typing import Any

import psutil
import torch


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
