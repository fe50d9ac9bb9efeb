"""A model read from a file of another format, called like the model that it was exported from."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch import Tensor

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""From inputs to outputs, by their names in transformers."""


class Runnable:
    """A model that `evaluate` and `forward` can call although it is not a PyTorch module.

    Args:
        config: Configuration of the model that it was exported from.
        run: Computes its outputs.
    """

    training = False

    def __init__(self, config: Any, run: Run):
        self.config = config
        self._run = run

    def __call__(self, *, output_hidden_states: bool = False, **inputs: Tensor) -> SimpleNamespace:
        """Returns the outputs as attributes; hidden states are not available."""
        assert not output_hidden_states
        return SimpleNamespace(**self._run(inputs))

    def eval(self) -> Runnable:
        """Does nothing: the model can't be trained."""
        return self

    def train(self, mode: bool = True) -> Runnable:
        """Does nothing, see `eval`."""
        return self
