"""A model read from a file of another format, called as the one that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch import Tensor

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""From inputs to outputs, by their names in transformers."""


class Runnable:
    """What `evaluate` and `forward` ask of a model, for one that is no PyTorch module.

    Args:
        config: Configuration of the model that it was made from.
        run: Runs it.
    """

    training = False

    def __init__(self, config: Any, run: Run):
        self.config = config
        self._run = run

    def __call__(self, *, output_hidden_states: bool = False, **inputs: Tensor) -> SimpleNamespace:
        """Returns the outputs as attributes; there are no hidden states among them."""
        assert not output_hidden_states
        return SimpleNamespace(**self._run(inputs))

    def eval(self) -> Runnable:
        """Does nothing: it can't be trained."""
        return self

    def train(self, mode: bool = True) -> Runnable:
        """Does nothing, see `eval`."""
        return self
