"""Files of a run in a folder and in its object store, copied so that no interruption loses any.

An object store can't rename, so the file that marks a folder as complete is uploaded last and
removed first: `trial.json` of a checkpoint, `student.json` of a student. What refers to other files
is uploaded after them: a trial's outcome after its student, the study after the outcomes in it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from lkd_tune.files.atomic import atomic_folder, remove_folder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.storage.fetch import download_all
from lkd_tune.storage.object_store import Store

Stamp = tuple[int, int]
"""Size and modification time (ns) of a local file."""

_CHECKPOINT = re.compile(r"(trials/[^/]+/checkpoint-(\d+))/")
_STUDENT = re.compile(r"((?:trials/[^/]+/student|students/[^/]+))/")
_COMPLETE_MARKS = ("trial.json", "student.json")


def is_mirrored(name: str) -> bool:
    """Whether a file of a run is mirrored to its store.

    Ray's own files, drafts and locks are not. The teacher is uploaded by the process that trained
    it, the report by the command that wrote it.
    """
    hidden = any(part.startswith(".") for part in name.split("/"))
    not_mirrored = ("ray/", "report/", "teacher/model", "study.journal.")
    return not hidden and not name.startswith(not_mirrored)


def list_stamps(folder: Path, below: str = "") -> dict[str, Stamp]:
    """Returns the stamps of a run's mirrored files, by name."""
    found: dict[str, Stamp] = {}
    # `rglob` takes three times as long, and this is called often, for thousands of trials.
    folders = [below]
    while folders:
        at, entries = folders.pop(), []
        # Folders and files may be removed at any time.
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / at) as listed:
            entries = [*listed]
        for entry in entries:
            name = f"{at}/{entry.name}" if at else entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif is_mirrored(name) and entry.is_file():
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found[name] = (status.st_size, status.st_mtime_ns)
    return found


class Sync:
    """Uploads, downloads and removes the objects of a run.

    Args:
        store: The run's store.
        folder: The run's folder, or the part of it on a node.

    Attributes:
        known: The objects that this process keeps up to date, with the stamp of the file that each
            was uploaded from; None if that file differs or does not exist.
    """

    def __init__(self, store: Store, folder: Path):
        self.store, self.folder = store, folder
        self.known: dict[str, Stamp | None] = {}

    def push(
        self,
        local: Mapping[str, Stamp],
        gone: Collection[str],
        contents: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Uploads changed files, and removes the objects of removed files.

        Args:
            local: The stamps of the files when they were listed.
            gone: Known objects whose files the search had removed by then.
            contents: What to upload instead of a file's current content.

        Returns:
            Whether everything is done; if not, list the files and push again.

        Raises:
            FileNotFoundError: If a file was removed since it was listed; list and push again.
            StorageError: If the store can't be written.
        """
        changed = [name for name in local if self.known.get(name) != local[name]]
        order = sorted(changed, key=self._order)
        # Single files are removed with a whole trial only, and first: another trial may have its
        # name by now.
        self._remove([name for name in gone if _unit(name) == name])
        skipped = False
        for unit, names in itertools.groupby(order, key=_unit):
            try:
                self._upload([*names], local, contents or {})
            except FileNotFoundError:
                if not _CHECKPOINT.match(f"{unit}/"):
                    raise
                skipped = True  # a newer one exists, for the next push
        if not skipped:
            self._remove([name for name in gone if _unit(name) != name])
        return not skipped

    def pull_trial(self, trial: str, *, checkpoint: bool) -> None:
        """Makes a trial's folder equal to the store: with the student, and on request a checkpoint.

        Raises:
            StorageError: If the store can't be read.
        """
        stored = self._list(trial)
        units: dict[str, list[str]] = {}
        for name in stored:
            units.setdefault(_unit(name), []).append(name)
        complete = {
            unit for unit in units if any(f"{unit}/{mark}" in stored for mark in _COMPLETE_MARKS)
        }
        last = f"trials/{trial}/outcome.json"
        single_files = [name for unit, names in units.items() for name in names if unit == name]
        download_all(self.store, [name for name in single_files if name != last], self.folder)
        own = TrialFolder(self.folder / "trials" / trial)
        own.path.mkdir(parents=True, exist_ok=True)
        for unit in sorted(complete):
            if _STUDENT.match(f"{unit}/") or checkpoint:
                # Also if it exists here: that may be from a trial that this one has replaced.
                with atomic_folder(self.folder / unit) as draft:
                    for name in units[unit]:
                        self.store.download(name, draft / name.removeprefix(f"{unit}/"))
        for path in own.path.glob("checkpoint-*"):
            if f"trials/{trial}/{path.name}" not in complete:
                remove_folder(path)
        download_all(self.store, [name for name in single_files if name == last], self.folder)
        local = list_stamps(self.folder, f"trials/{trial}")
        self.known |= {name: local.get(name) for name in stored}

    def is_ahead(self, trial: str) -> bool:
        """Whether the store has more of a trial than its folder here."""
        own = TrialFolder(self.folder / "trials" / trial)
        if own.read_outcome() is not None:
            return False
        stored, checkpoint = self._list(trial), own.read_checkpoint()
        steps = [
            int(match[2])
            for name in stored
            if name.endswith("/trial.json") and (match := _CHECKPOINT.match(name))
        ]
        ended = f"trials/{trial}/outcome.json" in stored
        return ended or max(steps, default=0) > (checkpoint.step if checkpoint else 0)

    def pull_missing(self, below: str) -> None:
        """Downloads files of a folder that do not exist here; existing ones never change."""
        stored = [name for name in self.store.list(below) if is_mirrored(name)]
        missing = [name for name in stored if not (self.folder / name).exists()]
        download_all(self.store, missing, self.folder)
        local = list_stamps(self.folder, below)
        self.known |= {name: local[name] for name in stored if name in local}

    def _list(self, trial: str) -> list[str]:
        return [name for name in self.store.list(f"trials/{trial}") if is_mirrored(name)]

    def _upload(
        self, names: list[str], local: Mapping[str, Stamp], contents: Mapping[str, bytes]
    ) -> None:
        with contextlib.ExitStack() as stack:
            # All are opened first: an open file can be read even when its folder is removed.
            files = [stack.enter_context((self.folder / name).open("rb")) for name in names]
            for name, file in zip(names, files, strict=True):
                if name in contents:
                    self.store.write(name, contents[name])
                else:
                    self.store.upload(name, file)
                self.known[name] = local[name]

    def _remove(self, gone: Iterable[str]) -> None:
        for unit, names in itertools.groupby(sorted(gone, key=_unit), key=_unit):
            listed = [*names]
            if unit in listed or (self.folder / unit).exists():
                for name in listed:
                    self.store.remove(name)
            else:
                for mark in _COMPLETE_MARKS:
                    if f"{unit}/{mark}" in listed:
                        self.store.remove(f"{unit}/{mark}")
                self.store.remove_folder(unit)
            for name in listed:
                self.known.pop(name, None)

    def _order(self, name: str) -> tuple[int, int, str, bool, str]:
        """Returns the sort key for the order of uploads."""
        unit, last = _unit(name), name.rpartition("/")[2]
        if _STUDENT.match(name):
            rank = 1
        elif last == "outcome.json":
            rank = 2
        elif name == "study.journal":
            rank = 3
        elif _CHECKPOINT.match(name):
            rank = 4
        elif last == "spec.json" and name in self.known:
            rank = 5  # of a trial that has replaced another one: after its new checkpoint
        else:
            rank = 0
        return (
            rank,
            unit.count("/"),
            unit,
            name in {f"{unit}/{mark}" for mark in _COMPLETE_MARKS},
            name,
        )


def _unit(name: str) -> str:
    """Returns the checkpoint or student that a file belongs to, else the file itself."""
    match = _CHECKPOINT.match(name) or _STUDENT.match(name)
    return match[1] if match else name
