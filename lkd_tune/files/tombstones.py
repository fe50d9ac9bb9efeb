"""What a search removed of a run with a home, and what is merely missing.

A file may be missing in a run's folder because the search removed it, or because a cache or a
scratch disk was cleaned. Only the first is to go from the run's store, too; the second comes back
from there. So whoever removes something leaves a note, until the store has lost it as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

_NOTES = ".removed"


def keep_notes(run: Path) -> None:
    """Has removals in a run's folder be noted from now on."""
    (run / _NOTES).mkdir(parents=True, exist_ok=True)


def note_removal(path: Path) -> None:
    """Notes that a folder of a trial, a student or a whole trial was removed, or moved elsewhere.

    Called right after: killed in between, what was removed comes back when the run is resumed, and
    is removed again.
    """
    for run in path.parents[1:3]:  # students/0007, trials/0007/student
        if (run / _NOTES).is_dir():
            # A disk too full for a note is not to keep anything from being removed.
            with contextlib.suppress(OSError):
                (run / _NOTES / quote(path.relative_to(run).as_posix(), safe="")).touch()


def read_notes(run: Path) -> set[str]:
    """Returns the folders that were removed, by their names in the run."""
    notes = run / _NOTES
    return {unquote(note.name) for note in notes.iterdir()} if notes.is_dir() else set()


def forget_notes(run: Path, folders: Iterable[str]) -> None:
    """Drops the notes of folders that the store has lost."""
    for folder in folders:
        (run / _NOTES / quote(folder, safe="")).unlink(missing_ok=True)


def is_below(name: str, folders: set[str]) -> bool:
    """Whether a file lies in one of some folders."""
    parts = name.split("/")
    return any("/".join(parts[:depth]) in folders for depth in range(1, len(parts)))
