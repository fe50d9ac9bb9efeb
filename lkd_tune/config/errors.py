"""Errors in the user's input, each with its place, the value, the rule and a way to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One problem with the user's input.

    Attributes:
        where: Where it is, for example `layer_map.yaml:14` or `--set train.lr`.
        key: The dotted path of the setting, '' if the problem is not about a single setting.
        message: What was found, what is allowed, and how to fix it.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        key = "" if self.where == f"--set {self.key}" else self.key
        place = " ".join(part for part in (self.where, key) if part)
        return f"{place}: {self.message}" if place else self.message


class SpecError(ValueError):
    """The user's input is invalid; nothing was started.

    Attributes:
        problems: All problems that were found, in the order of the file.
    """

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[Problem]]]:
        # By default, pickle would pass the text instead of the problems to another process.
        return (SpecError, (self.problems,))


class SearchEndedError(RuntimeError):
    """A search has ended before it could return a result; what it had finished is kept.

    Attributes:
        exit_code: Of the command line: 130 after a signal, else 1.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(found: str, allowed: Sequence[str]) -> str:
    """Returns ' (did you mean …?)' with the most similar allowed word; '' if none is similar."""
    near = difflib.get_close_matches(found, allowed, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
