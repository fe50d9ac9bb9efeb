"""Suggesters without a study: one draws at random, one takes what it is told."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any


class RandomSuggester:
    """Draws uniformly and notes the name and range of each parameter."""

    def __init__(self, seed: int = 0):
        self._rng = random.Random(seed)
        self.asked: dict[str, Any] = {}

    def suggest_float(self, name, low, high, *, step=None, log=False):
        self.asked[name] = (low, high)
        return self._rng.uniform(low, high)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.asked[name] = (low, high)
        return self._rng.randrange(low, high + 1, step)

    def suggest_categorical(self, name, choices):
        self.asked[name] = tuple(choices)
        return self._rng.choice(choices)


class Told:
    """Gives the values it was told."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = values

    def suggest_float(self, name, low, high, *, step=None, log=False):
        assert low <= self._values[name] <= high
        return self._values[name]

    def suggest_int(self, name, low, high, *, step=1, log=False):
        assert low <= self._values[name] <= high
        return self._values[name]

    def suggest_categorical(self, name, choices):
        assert self._values[name] in choices
        return self._values[name]
