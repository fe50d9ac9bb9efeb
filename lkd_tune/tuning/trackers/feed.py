"""A thread that updates one tracker, so that the search neither waits for it nor fails with it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lkd_tune.tuning.trackers.base import TrackedTrial, Tracker

# Pause between two attempts while the tracker fails.
_RETRY_S = 20.0
# Time for the rest at the end of a session; what is missing then is logged by the next session.
_CLOSE_TIMEOUT_S = 60.0


class Feed:
    """A thread that sends the latest state of each trial to one tracker.

    While the tracker fails, changed trials wait. So a server that was down for an hour gets
    everything afterwards. The user sees two messages: at the first failure, and when logging works
    again.

    Args:
        tracker: The tracker; it is opened, updated and closed in the thread.
        read: Returns a trial by its name; None if there is nothing to log.
        report: Called in the thread with messages for the user.
        completed: Called in the thread when a trial has ended and the tracker has all of it.
    """

    def __init__(
        self,
        tracker: Tracker,
        read: Callable[[str], TrackedTrial | None],
        report: Callable[[str], None],
        completed: Callable[[TrackedTrial], None],
    ):
        self._tracker, self._read = tracker, read
        self._report, self._completed = report, completed
        self._waiting: dict[str, None] = {}  # names of changed trials, the oldest change first
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._is_open = self._is_failing = False
        self._thread = threading.Thread(target=self._run_updates, name=tracker.name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, name: str) -> None:
        """Schedules an update of a trial."""
        with self._changed:
            self._waiting.setdefault(name)
            self._changed.notify()

    def end(self, timeout: float = _CLOSE_TIMEOUT_S) -> int:
        """Sends what waits, if possible, and ends; returns the number of trials that still wait."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            return len(self._waiting)

    def _run_updates(self) -> None:
        while True:
            with self._changed:
                while self._is_open and not self._waiting and not self._closing.is_set():
                    self._changed.wait()
                name = next(iter(self._waiting), None)
            if name is None and self._closing.is_set():
                break
            try:
                self._open()
                if name is not None:
                    self._send(name)
            except Exception as error:  # no error of a tracker may end the search
                self._report_failure(error)
                if self._closing.is_set():
                    break
                self._closing.wait(_RETRY_S)
        self._close()

    def _open(self) -> None:
        if not self._is_open:
            self._report(f"{self._tracker.name}: {self._tracker.open()}")
            self._is_open = True

    def _send(self, name: str) -> None:
        with self._changed:
            self._waiting.pop(name, None)
        try:
            trial = self._read(name)
            if trial is not None:
                self._tracker.update(trial)
        except BaseException:
            with self._changed:
                self._waiting.setdefault(name)
            raise
        if trial is not None and trial.state != "running":
            self._completed(trial)
        if self._is_failing:
            self._is_failing = False
            self._report(f"{self._tracker.name}: logging works again")

    def _report_failure(self, error: Exception) -> None:
        if not self._is_failing:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            then = "the search continues, and what is missing is logged later"
            self._report(f"{self._tracker.name}: logging failed ({reason}); {then}")
        self._is_failing = True

    def _close(self) -> None:
        try:
            if self._is_open:
                self._tracker.close()
        except Exception as error:
            self._report_failure(error)
