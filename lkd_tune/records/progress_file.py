"""How far a trial is between two of its evaluations, told by a file in its folder.

A driver can't ask an actor that trains, and evaluations may be hours apart. Where the driver does
not see the trial's folder it learns of the evaluations alone.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

from lkd_tune.records.pace import Pace

_SELDOM_S = 1.0


def pace_in(folder: Path) -> Path:
    """Returns the file that tells how far a training is, in the folder of the trial or teacher."""
    return folder / ".pace"


def pace_noter(path: Path) -> Callable[[Pace], None]:
    """Returns what writes a pace to a file, at most once a second."""
    noted = float("-inf")

    def note(pace: Pace) -> None:
        nonlocal noted
        if time.monotonic() - noted < _SELDOM_S:
            return
        noted = time.monotonic()
        with contextlib.suppress(OSError):  # no training is to end for want of it
            path.write_text(json.dumps(astuple(pace)), "utf-8")

    return note


def read_pace(path: Path) -> Pace | None:
    """Returns the pace in a file, None if there is none or it is being written."""
    try:
        return Pace(*json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, ValueError):
        return None
