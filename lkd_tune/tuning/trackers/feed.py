"""Bringing one tracker up to date beside the search, which never waits for it nor ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lkd_tune.tuning.trackers.base import TrackedTrial, Tracker

# Between two attempts while it fails.
_RETRY_S = 20.0
# At the end of a session; a server that is slower than that gets the rest with the next one.
_LAST_S = 60.0


class Feed:
    """A thread that tells one tracker of trials, the latest state of each.

    While the tracker fails, what is new waits, however often it changes. So a server that is gone
    for an hour has everything afterwards, and the search is told of it twice: when it went and when
    it came back.

    Args:
        tracker: Opened, told and closed in the thread.
        read: Returns a trial by its name; None if there is nothing to tell of it (any more).
        tell: Told, in the thread, what the user should know.
        ended: Called, in the thread, when a trial that has ended is complete in the tracker.
    """

    def __init__(
        self,
        tracker: Tracker,
        read: Callable[[str], TrackedTrial | None],
        tell: Callable[[str], None],
        ended: Callable[[TrackedTrial], None],
    ):
        self._tracker, self._read, self._tell, self._ended = tracker, read, tell, ended
        self._waiting: dict[str, None] = {}  # names, the one that waits longest first
        self._changed = threading.Condition()
        self._last = threading.Event()
        self._opened = self._failing = False
        self._thread = threading.Thread(target=self._follow, name=tracker.name, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def put(self, name: str) -> None:
        """Has a trial be told as it is now."""
        with self._changed:
            self._waiting.setdefault(name)
            self._changed.notify()

    def end(self, timeout: float = _LAST_S) -> int:
        """Tells what waits if that can be done, and ends; returns how many trials still wait."""
        self._last.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            return len(self._waiting)

    def _follow(self) -> None:
        while True:
            with self._changed:
                while self._opened and not self._waiting and not self._last.is_set():
                    self._changed.wait()
                name = next(iter(self._waiting), None)
            if name is None and self._last.is_set():
                break
            try:
                self._open()
                if name is not None:
                    self._send(name)
            except Exception as error:  # whatever a tracker raises, the search goes on
                self._trouble(error)
                if self._last.is_set():
                    break
                self._last.wait(_RETRY_S)
        self._close()

    def _open(self) -> None:
        if not self._opened:
            self._tell(f"{self._tracker.name}: {self._tracker.open()}")
            self._opened = True

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
            self._ended(trial)
        if self._failing:
            self._failing = False
            self._tell(f"{self._tracker.name} is logged to again")

    def _trouble(self, error: Exception) -> None:
        if not self._failing:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            after = "the search goes on, and what is missing is logged later"
            self._tell(f"{self._tracker.name} can't be logged to ({said}); {after}")
        self._failing = True

    def _close(self) -> None:
        try:
            if self._opened:
                self._tracker.close()
        except Exception as error:
            self._trouble(error)
