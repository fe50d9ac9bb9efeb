"""Files of a run, in a folder and in its store: sent such that a cut anywhere loses nothing.

An object store knows no renaming, so what says that a folder is whole goes last and is removed
first: `trial.json` of a checkpoint, `student.json` of a student. What refers to other things goes
after them: a trial's outcome after its student, the study after the outcomes it was told of.
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
"""Size and time of change (ns) of a local file."""

_CHECKPOINT = re.compile(r"(trials/[^/]+/checkpoint-(\d+))/")
_STUDENT = re.compile(r"((?:trials/[^/]+/student|students/[^/]+))/")
_MARKS = ("trial.json", "student.json")


def is_sent(name: str) -> bool:
    """Whether a file of a run is one that its store has too.

    Not sent are Ray's own files, drafts and locks. The teacher is put there by who trained it,
    the report by who wrote it.
    """
    hidden = any(part.startswith(".") for part in name.split("/"))
    others = ("ray/", "report/", "teacher/model", "study.journal.")
    return not hidden and not name.startswith(others)


def stamps(folder: Path, below: str = "") -> dict[str, Stamp]:
    """Returns the files of a run that are to be sent, by name."""
    found: dict[str, Stamp] = {}
    # Not by `rglob`: it takes three times as long, and a driver of thousands of trials asks often.
    left = [below]
    while left:
        at, entries = left.pop(), []
        # A folder may go at any time, and a file.
        with contextlib.suppress(FileNotFoundError), os.scandir(folder / at) as listed:
            entries = [*listed]
        for entry in entries:
            name = f"{at}/{entry.name}" if at else entry.name
            if entry.is_dir(follow_symlinks=False):
                left.append(name)
            elif is_sent(name) and entry.is_file():
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found[name] = (status.st_size, status.st_mtime_ns)
    return found


class Sync:
    """What is known of a run's objects, and making them and the files alike.

    Args:
        store: The run's.
        folder: The run's, or a node's part of it.

    Attributes:
        known: The objects that this process looks after, with the stamp of the file that each
            was made from; None where the file is another or there is none.
    """

    def __init__(self, store: Store, folder: Path):
        self.store, self.folder = store, folder
        self.known: dict[str, Stamp | None] = {}

    def push(
        self,
        here: Mapping[str, Stamp],
        gone: Collection[str],
        contents: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Sends what has changed, and removes objects whose files were removed.

        Args:
            here: Files as they were when they were listed.
            gone: Objects that were known before that, whose files are not among them because the
                search removed them.
            contents: What is to be sent in place of a file's content of now.

        Returns:
            Whether that was all; if not there is more to do as soon as the files are listed again.

        Raises:
            FileNotFoundError: If a file has gone since it was listed; list and push again.
            StorageError: If the store does not take it.
        """
        changed = [name for name in here if self.known.get(name) != here[name]]
        order = sorted(changed, key=self._order)
        # Single files go only with a whole trial, whose name another may have by now.
        self._drop([name for name in gone if _unit(name) == name])
        skipped = False
        for unit, names in itertools.groupby(order, key=_unit):
            try:
                self._send([*names], here, contents or {})
            except FileNotFoundError:
                if not _CHECKPOINT.match(f"{unit}/"):
                    raise
                skipped = True  # a newer one is there, for the next time
        if not skipped:
            self._drop([name for name in gone if _unit(name) != name])
        return not skipped

    def pull_trial(self, trial: str, *, checkpoint: bool) -> None:
        """Makes a trial's folder what its store has: the student too, and the checkpoint if asked.

        Raises:
            StorageError: If the store can't be read.
        """
        there = self._list(trial)
        units: dict[str, list[str]] = {}
        for name in there:
            units.setdefault(_unit(name), []).append(name)
        whole = {unit for unit in units if any(f"{unit}/{mark}" in there for mark in _MARKS)}
        last = f"trials/{trial}/outcome.json"
        loose = [name for unit, names in units.items() for name in names if unit == name]
        download_all(self.store, [name for name in loose if name != last], self.folder)
        own = TrialFolder(self.folder / "trials" / trial)
        own.path.mkdir(parents=True, exist_ok=True)
        for unit in sorted(whole):
            if _STUDENT.match(f"{unit}/") or checkpoint:
                # Also one of a name that is here: it may be that of the trial that was taken over.
                with atomic_folder(self.folder / unit) as draft:
                    for name in units[unit]:
                        self.store.download(name, draft / name.removeprefix(f"{unit}/"))
        for path in own.path.glob("checkpoint-*"):
            if f"trials/{trial}/{path.name}" not in whole:
                remove_folder(path)
        download_all(self.store, [name for name in loose if name == last], self.folder)
        here = stamps(self.folder, f"trials/{trial}")
        self.known |= {name: here.get(name) for name in there}

    def is_ahead(self, trial: str) -> bool:
        """Whether the store knows more of a trial than its folder here."""
        own = TrialFolder(self.folder / "trials" / trial)
        if own.read_outcome() is not None:
            return False
        there, checkpoint = self._list(trial), own.read_checkpoint()
        steps = [
            int(match[2])
            for name in there
            if name.endswith("/trial.json") and (match := _CHECKPOINT.match(name))
        ]
        ended = f"trials/{trial}/outcome.json" in there
        return ended or max(steps, default=0) > (checkpoint.step if checkpoint else 0)

    def pull_missing(self, below: str) -> None:
        """Fetches files of a folder that are not here; those that are never change."""
        there = [name for name in self.store.list(below) if is_sent(name)]
        lacking = [name for name in there if not (self.folder / name).exists()]
        download_all(self.store, lacking, self.folder)
        here = stamps(self.folder, below)
        self.known |= {name: here[name] for name in there if name in here}

    def _list(self, trial: str) -> list[str]:
        return [name for name in self.store.list(f"trials/{trial}") if is_sent(name)]

    def _send(
        self, names: list[str], here: Mapping[str, Stamp], contents: Mapping[str, bytes]
    ) -> None:
        with contextlib.ExitStack() as stack:
            # All at once: an open file can be read to its end, also when its folder is removed.
            files = [stack.enter_context((self.folder / name).open("rb")) for name in names]
            for name, file in zip(names, files, strict=True):
                if name in contents:
                    self.store.write(name, contents[name])
                else:
                    self.store.upload(name, file)
                self.known[name] = here[name]

    def _drop(self, gone: Iterable[str]) -> None:
        for unit, names in itertools.groupby(sorted(gone, key=_unit), key=_unit):
            listed = [*names]
            if unit in listed or (self.folder / unit).exists():
                for name in listed:
                    self.store.remove(name)
            else:
                for mark in _MARKS:
                    if f"{unit}/{mark}" in listed:
                        self.store.remove(f"{unit}/{mark}")
                self.store.remove_folder(unit)
            for name in listed:
                self.known.pop(name, None)

    def _order(self, name: str) -> tuple[int, int, str, bool, str]:
        """Returns when a file is to be sent."""
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
            rank = 5  # of a trial that took over another: its checkpoint is there now
        else:
            rank = 0
        return rank, unit.count("/"), unit, name in {f"{unit}/{mark}" for mark in _MARKS}, name


def _unit(name: str) -> str:
    """Returns the checkpoint or student that a file is part of, or the file itself."""
    match = _CHECKPOINT.match(name) or _STUDENT.match(name)
    return match[1] if match else name
