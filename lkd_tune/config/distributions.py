"""Distributions that may stand in a space file in place of a value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

KINDS = ("choice", "uniform", "loguniform", "int")


class Suggester(Protocol):
    """Draws values by name; the part of `optuna.Trial` that a space needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Returns a float from [low, high]."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Returns an integer from low to high, both included."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """Returns one of the choices."""


@dataclass(frozen=True)
class Choice:
    """One of several options. An option may be a block that contains distributions."""

    options: tuple[Any, ...]

    def draw(self, name: str, suggester: Suggester) -> Any:
        """Returns one option."""
        categories = [self.category(option) for option in self.options]
        return self.options[categories.index(suggester.suggest_categorical(name, categories))]

    def category(self, option: Any) -> Any:
        """Returns the categorical value that a study stores for an option."""
        if all(o is None or isinstance(o, bool | int | float | str) for o in self.options):
            return option
        # A study can't store lists and blocks as categories, but it can store their JSON text.
        return json.dumps(option, default=str)

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values to try in a check of a space: all of them."""
        return self.options

    @property
    def size(self) -> float:
        """The number of different values."""
        return len(self.options)

    def __str__(self) -> str:
        return "one of " + ", ".join(
            json.dumps(option, default=str).strip('"') for option in self.options
        )


@dataclass(frozen=True)
class Numbers:
    """Numbers from low to high, both included."""

    low: float
    high: float
    integer: bool = False
    log: bool = False
    step: float | None = None

    def draw(self, name: str, suggester: Suggester) -> Any:
        """Returns a number."""
        if self.integer:
            return suggester.suggest_int(
                name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return suggester.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def nearest(self, value: float) -> float:
        """Returns the number that can be drawn and is nearest to a value."""
        value = min(max(value, self.low), self.high)
        if self.integer or self.step:
            step = self.step or 1
            value = self.low + round((value - self.low) / step) * step
            value = value if value <= self.high else value - step
        return int(value) if self.integer else float(value)

    @property
    def middle(self) -> float:
        """The middle of the range; on a log scale the geometric middle."""
        ends = self.low, self.high
        return self.nearest(math.sqrt(math.prod(ends)) if self.log else sum(ends) / 2)

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values to try in a check of a space: both ends, or all integers of a small range."""
        if self.integer:
            low, high = int(self.low), int(self.high)
            if self.size <= 64:
                return tuple(range(low, high + 1, int(self.step or 1)))
            return (low, high)
        return (self.low, self.high)

    @property
    def size(self) -> float:
        """The number of different values, infinity if continuous."""
        if self.step is None and not self.integer:
            return 1 if self.low == self.high else math.inf
        return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    def __str__(self) -> str:
        kind = "integers" if self.integer else "numbers"
        low, high = (f"{end:g}" for end in (self.low, self.high))
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{kind} {low} to {high}{step}{', log scale' if self.log else ''}"


Distribution = Choice | Numbers


def looks_like_distribution(value: Any) -> bool:
    """Returns whether a block is meant as a distribution, valid or not."""
    return isinstance(value, Mapping) and any(kind in value for kind in KINDS)


def parse_distribution(value: Mapping[str, Any]) -> Distribution:
    """Returns the distribution that a block such as `{loguniform: [0.1, 100]}` describes.

    Raises:
        ValueError: If it is invalid; the message says what is wrong and what is allowed.
    """
    kinds = [kind for kind in KINDS if kind in value]
    if len(kinds) != 1:
        raise ValueError(f"needs exactly one of {', '.join(KINDS)}, found {', '.join(kinds)}")
    kind = kinds[0]
    extra = set(value) - {kind} - (set() if kind == "choice" else {"step", "log"})
    if extra:
        raise ValueError(f"{kind} does not take {', '.join(sorted(map(str, extra)))}")
    if kind == "choice":
        options = value[kind]
        if not isinstance(options, list) or not options:
            raise ValueError(f"choice needs a list of options, found {options!r}")
        if len({json.dumps(option, sort_keys=True, default=str) for option in options}) < len(
            options
        ):
            raise ValueError(f"choice lists an option twice: {options}")
        if nested := [option for option in options if isinstance(option, Distribution)]:
            raise ValueError(f"an option of a choice can't be a distribution itself: {nested[0]}")
        return Choice(tuple(options))
    return _parse_numbers(kind, value)


def _parse_numbers(kind: str, value: Mapping[str, Any]) -> Numbers:
    ends = value[kind]
    number = int if kind == "int" else (int, float)
    if (
        not isinstance(ends, list)
        or len(ends) != 2
        or not all(isinstance(end, number) and not isinstance(end, bool) for end in ends)
    ):
        what = "two integers" if kind == "int" else "two numbers"
        raise ValueError(f"{kind} needs [lo, hi], {what}, found {ends!r}")
    low, high = ends
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{kind} needs finite ends, found {ends}")
    if low > high:
        raise ValueError(f"{kind} has lo > hi: {ends}; write [{high}, {low}]")
    log, step = value.get("log", False), value.get("step")
    if not isinstance(log, bool):
        raise ValueError(f"log must be true or false, found {log!r}")
    log = log or kind == "loguniform"
    if log and low <= 0:
        raise ValueError(f"a log scale needs lo > 0, found {ends}")
    if step is not None:
        if not isinstance(step, number) or isinstance(step, bool) or step <= 0:
            raise ValueError(f"step must be a positive number, found {step!r}")
        if log:
            raise ValueError("step can't be used with a log scale; remove one of them")
    return Numbers(low, high, integer=kind == "int", log=log, step=step)
