"""Products of float32 matrices by a CPU's units for bfloat16.

As GPUs do, Intel's Xeons since 2023 (AMX) multiply bfloat16 several times as fast as float32.
Weights, activations, gradients and sums stay in float32; what is multiplied is rounded to 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# To round the factors of narrower products takes as long as it saves: at widths of 64, 128 and 256
# a product took 0.9, 0.5 and 0.3 of its time.
_NARROW = 128


def gains_by_bf16_products(width: int) -> bool:
    """Returns whether this CPU trains a model faster so.

    Args:
        width: The model's hidden size.
    """
    has_setting = hasattr(_setting(), "fp32_precision") and hasattr(torch.cpu, "get_capabilities")
    return has_setting and width >= _NARROW and torch.cpu.get_capabilities().get("amx_bf16", False)


@contextmanager
def bf16_products() -> Iterator[None]:
    """Rounds the factors of products to bfloat16, but in what asks for exact ones by itself."""
    setting = _setting()
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def _setting() -> Any:
    return getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
