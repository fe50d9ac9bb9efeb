"""The journal of a study: the file that Optuna's own backend reads and writes, for one writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend


class Journal(BaseJournalBackend):
    """Lines of JSON, each an operation, of which `batch` writes many in one go.

    Optuna's backend takes a lock, writes to the disk and reads the file again for each parameter
    of a trial, as others may write between. A run is written by its driver alone (`locked` in
    `tuner.py`), so that one writing for each trial that is drawn or told is enough, and all that is
    new to read is what was written here. On NFS each of these is a way to the server and back. A
    kill in a writing leaves its first lines, as one between two writings would.

    Args:
        path: The file; it has no half line at its end.
    """

    def __init__(self, path: Path):
        self._path = path
        self._unread = _parsed(path) if path.exists() else []
        self._read = 0
        self._draft: list[str] | None = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Gives the operations from this number on."""
        del self._unread[: log_number_from - self._read]
        self._read = log_number_from
        return iter([*self._unread])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds operations; on return they are on the disk, unless within `batch`."""
        self._unread += logs
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        if self._draft is None:
            self._write(lines)
        else:
            self._draft += lines

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Has all that is added within be on the disk at the end, also if something is raised."""
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


def _parsed(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
