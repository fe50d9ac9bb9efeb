"""Bad input, told so that it can be mended: place, value, rule, nearest valid choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what the user gave.

    Attributes:
        where: The place as a user would look it up, `layer_map.yaml:14` or `--set train.lr`.
        key: The dotted path of the setting, '' if the problem is not with one setting.
        message: What was found, what is allowed, and how to mend it.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        key = "" if self.where == f"--set {self.key}" else self.key
        place = " ".join(part for part in (self.where, key) if part)
        return f"{place}: {self.message}" if place else self.message


class SpecError(ValueError):
    """What was asked for can't be done; nothing has been started.

    Attributes:
        problems: Every problem found, in the order of the file, so that one run shows them all.
    """

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[Problem]]]:
        # Exceptions cross process borders by pickle, which would pass the text instead.
        return (SpecError, (self.problems,))


def did_you_mean(found: str, allowed: Sequence[str]) -> str:
    """Returns ' (did you mean …?)' for the nearest allowed word, or '' where none is near."""
    near = difflib.get_close_matches(found, allowed, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
