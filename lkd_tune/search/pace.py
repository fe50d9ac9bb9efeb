"""How far a trial is between two of its evaluations, told by a file in its folder.

A driver can't ask an actor that trains, and evaluations may be hours apart. Where the driver does
not see the trial's folder it learns of the evaluations alone.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

_SELDOM_S = 1.0


@dataclass(frozen=True)
class Pace:
    """How far a training is.

    Attributes:
        step: Optimizer steps done.
        total_steps: Of the whole training.
        train_s: Seconds that they took, evaluations not counted.
    """

    step: int
    total_steps: int
    train_s: float

    @property
    def whole_s(self) -> float:
        """Seconds that all steps will have taken, at the pace of those that are done."""
        return self.train_s * self.total_steps / self.step


def pace_of_teacher(folder: Path) -> Path:
    """Returns the file that tells how far a teacher's training is, in the folder it tells in."""
    return folder / ".pace"


def pace_noter(path: Path) -> Callable[[int, int, float], None]:
    """Returns what writes a pace to a file, at most once a second."""
    noted = float("-inf")

    def note(step: int, total_steps: int, train_s: float) -> None:
        nonlocal noted
        if time.monotonic() - noted < _SELDOM_S:
            return
        noted = time.monotonic()
        with contextlib.suppress(OSError):  # no training is to end for want of it
            path.write_text(json.dumps(astuple(Pace(step, total_steps, train_s))), "utf-8")

    return note


def read_pace(path: Path) -> Pace | None:
    """Returns the pace in a file, None if there is none or it is being written."""
    try:
        return Pace(*json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, ValueError):
        return None
