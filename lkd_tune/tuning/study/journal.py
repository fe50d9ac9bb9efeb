"""The journal of a study: the file that Optuna's own backend reads and writes, for one writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from lkd_tune.config.objectives import OBJECTIVES
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import Ending

_STUDY_NAME = "lkd_tune"


class Journal(BaseJournalBackend):
    """Lines of JSON, one operation each; `batch` writes several of them together.

    For each parameter of a trial Optuna's backend takes a lock, writes to the disk and reads the
    file again, because other processes may write in between. Only the driver writes the journal of
    a run (see `tuning/lock.py`). So one write for each trial that is drawn or reported is enough,
    and nothing has to be read again. On NFS each of these operations is a round trip to the
    server. A process that is killed while it writes leaves the first lines of a batch, as if it
    had been killed between two writes.

    Args:
        path: The file, which ends with a complete line.
    """

    def __init__(self, path: Path):
        self._path = path
        self._unread = _parse(path) if path.exists() else []
        self._read = 0
        self._draft: list[str] | None = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yields the operations from this number on."""
        del self._unread[: log_number_from - self._read]
        self._read = log_number_from
        return iter([*self._unread])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds operations. They are on the disk on return, or at the end of `batch`."""
        self._unread += logs
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        if self._draft is None:
            self._write(lines)
        else:
            self._draft += lines

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Writes all that is added within at the end, also if something is raised."""
        self._draft = []
        try:
            yield
        finally:
            lines, self._draft = self._draft, None
            if lines:
                self._write(lines)

    def _write(self, lines: list[str]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())


def open_journal(path: Path) -> Journal:
    """Returns a journal, after removing an incomplete last line that a killed process left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    return Journal(path)


def study_in(journal: Journal, objectives: Sequence[str]) -> optuna.Study:
    """Returns the study in a journal, a new one if there is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name=_STUDY_NAME,
        directions=["maximize" if OBJECTIVES[name].maximize else "minimize" for name in objectives],
        storage=JournalStorage(journal),
        load_if_exists=True,
    )


def trial_names(path: Path) -> set[str]:
    """Returns the names of the trials that were drawn, according to a journal."""
    return {trial.user_attrs["name"] for trial in _named_trials(path)}


def ended_trials(path: Path) -> dict[str, Ending]:
    """Returns how the trials that have ended did so, by name, according to a journal."""
    endings: dict[TrialState, Ending] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "stopped",
        TrialState.FAIL: "failed",
    }
    return {
        trial.user_attrs["name"]: endings[trial.state]
        for trial in _named_trials(path)
        if trial.state.is_finished()
    }


def _named_trials(path: Path) -> list[FrozenTrial]:
    if not path.exists():
        return []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(open_journal(path))
    study = optuna.load_study(study_name=_STUDY_NAME, storage=storage)
    return [trial for trial in study.get_trials(deepcopy=False) if "name" in trial.user_attrs]


def next_number(run: RunFolder) -> int:
    """Returns the first number that no trial of a run has: neither a folder nor a drawn trial."""
    names = {path.name for path in run.path.glob("trials/*")} | trial_names(run.study)
    return 1 + max((int(name) for name in names if name.isdigit()), default=-1)


def _parse(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
