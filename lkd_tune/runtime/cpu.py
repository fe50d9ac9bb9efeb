"""How a model computes on a CPU: its threads, and matrix products in bfloat16.

As GPUs do, Intel's Xeons since 2023 (AMX) multiply bfloat16 several times as fast as float32. Only
the factors of products are rounded, to 8 bits. Weights, activations, gradients and sums stay in
float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Below this hidden size rounding the factors takes as long as it saves: at widths of 64, 128 and
# 256 a product took 0.9, 0.5 and 0.3 of its time.
_MIN_BF16_WIDTH = 128
# Below this hidden size a part of an operation is done before a second thread has started. On two
# cores a training step of width 64 takes 33 ms with one thread and 57 ms with two; one of width 384
# takes 425 ms and 331 ms.
_MIN_THREADED_WIDTH = 128


def gains_from_bf16_matmul(width: int) -> bool:
    """Returns whether matrix products in bfloat16 make training faster on this CPU.

    Args:
        width: The model's hidden size.
    """
    has_setting = hasattr(_matmul_setting(), "fp32_precision")
    if not has_setting or not hasattr(torch.cpu, "get_capabilities") or width < _MIN_BF16_WIDTH:
        return False
    return torch.cpu.get_capabilities().get("amx_bf16", False)


@contextmanager
def bf16_matmul() -> Iterator[None]:
    """Rounds the factors of products to bfloat16, except within `full_precision`."""
    setting = _matmul_setting()
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _matmul_setting() -> Any:
    return getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9


@contextmanager
def threads_for_width(width: int) -> Iterator[None]:
    """Uses one thread if the model is so narrow that more threads would slow it down.

    The number of threads decides how sums are rounded. So training a narrow model here gives the
    same result on machines of any size.

    Args:
        width: The model's hidden size.
    """
    before = torch.get_num_threads()
    if width < _MIN_THREADED_WIDTH:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
