"""A file with the progress of a training between two evaluations.

The driver can't ask an actor that is training, and evaluations may be hours apart, so the actor
writes its progress to a file in the folder of the trial. A driver that does not see that folder
gets the evaluations only.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

from lkd_tune.records.measurement import TrainingProgress

_MIN_INTERVAL_S = 1.0


def progress_path(folder: Path) -> Path:
    """Returns the path of the progress file in the folder of a trial or a teacher."""
    return folder / ".pace"


def progress_writer(path: Path) -> Callable[[TrainingProgress], None]:
    """Returns a function that writes progress to a file, at most once per second."""
    written = float("-inf")

    def write(progress: TrainingProgress) -> None:
        nonlocal written
        if time.monotonic() - written < _MIN_INTERVAL_S:
            return
        written = time.monotonic()
        with contextlib.suppress(OSError):  # training continues without the file
            path.write_text(json.dumps(astuple(progress)), "utf-8")

    return write


def read_progress(path: Path) -> TrainingProgress | None:
    """Returns the progress in a file; None if there is no file or it is being written."""
    try:
        return TrainingProgress(*json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, ValueError):
        return None
