"""How many of a CPU's threads a model can use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Below, the parts of an operation are done sooner than a second thread is awake: on two cores a
# training step of width 64 takes 33 ms with one thread and 57 with two, one of width 384 425 and
# 331.
_NARROW = 128


@contextmanager
def useful_threads(width: int) -> Iterator[None]:
    """Leaves one thread to what runs here, if a model is so narrow that more slow it down.

    As the number of threads decides how sums are rounded, a narrow model that is trained here is
    the same on machines of any size.

    Args:
        width: The model's hidden size.
    """
    before = torch.get_num_threads()
    if width < _NARROW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
