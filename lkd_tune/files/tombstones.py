"""Records of what a search removed from a run that is mirrored to an object store.

A file may be missing from a run's folder because the search removed it, or because somebody cleaned
a cache or a scratch disk. Only in the first case may it be removed from the store too; in the
second it is fetched from there. So each removal leaves a tombstone until the store has followed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

_FOLDER = ".removed"


def enable_tombstones(run: Path) -> None:
    """Makes removals in a run's folder leave tombstones from now on."""
    (run / _FOLDER).mkdir(parents=True, exist_ok=True)


def add_tombstone(path: Path) -> None:
    """Records that a folder of a trial, a student or a whole trial was removed or moved.

    Has to be called after the removal: if the process is killed in between, what was removed is
    fetched again when the run is resumed, and then removed again.
    """
    for run in path.parents[1:3]:  # of students/0007, and of trials/0007/student
        if (run / _FOLDER).is_dir():
            # On a full disk, removing things must not fail.
            with contextlib.suppress(OSError):
                (run / _FOLDER / quote(path.relative_to(run).as_posix(), safe="")).touch()


def read_tombstones(run: Path) -> set[str]:
    """Returns the folders that were removed, relative to the run's folder."""
    folder = run / _FOLDER
    return {unquote(path.name) for path in folder.iterdir()} if folder.is_dir() else set()


def drop_tombstones(run: Path, folders: Iterable[str]) -> None:
    """Drops the tombstones of folders that were removed from the store too."""
    for folder in folders:
        (run / _FOLDER / quote(folder, safe="")).unlink(missing_ok=True)


def is_below(name: str, folders: set[str]) -> bool:
    """Whether a file is in one of the folders."""
    parts = name.split("/")
    return any("/".join(parts[:depth]) in folders for depth in range(1, len(parts)))
