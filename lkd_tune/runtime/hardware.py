"""Names of the hardware that models run on."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def cpu_name() -> str:
    """Returns the name of this machine's CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def timed_on(device: torch.device, *, bf16: bool) -> str:
    """Returns hardware and precision of a latency: `NVIDIA H200, bf16`.

    For a CPU also the number of threads: `AMD EPYC, 2 threads, fp32`.
    """
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{name}, {'bf16' if bf16 else 'fp32'}"
