"""Ending a search before its last trial: Ctrl-C, SIGTERM, the time budget, or a full disk.

The time budget ends the trials of the search alone: what follows, other seeds of the best and the
baseline, is what makes a short search worth trusting.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import ray
from ray.tune import Stopper

from lkd_tune.files.disk import describe_disk, explain, is_full_disk

_LOOK_EVERY_S = 2.0


class StopRequest:
    """Whether the search is to end now, and why.

    Attributes:
        reason: `interrupted`; `time` when the budget is used up, until the clock is stopped;
            `disk` when the run's disk is nearly full, or another has no room for what is to be
            written; None while it goes on.
        full_disk: What is known of that disk, None unless it is the reason.
        out_of_time: Whether the time budget has ended the trials.
        seconds: Seconds of trials in all sessions of the run.
    """

    def __init__(
        self,
        minutes: float | None,
        seconds_before: float,
        *,
        folder: Path,
        min_free_gb: float = 0.0,
    ):
        self.reason: Literal["interrupted", "time", "disk"] | None = None
        self.full_disk: str | None = None
        self.out_of_time = False
        self._folder, self._min_free_gb = folder, min_free_gb
        self._looked = float("-inf")
        self._budget = None if minutes is None else minutes * 60
        self._before = seconds_before
        self._began: float | None = None

    def start_clock(self) -> None:
        """Called when trials begin; a teacher's training is not counted."""
        self._began = time.monotonic()

    def stop_clock(self) -> None:
        """Called when the trials have ended; what follows has no budget."""
        self._before, self._began = self.seconds, None
        if self.reason == "time":
            self.reason, self.out_of_time = None, True

    @property
    def seconds(self) -> float:
        """Seconds of trials so far, those of earlier sessions included."""
        return self._before + (time.monotonic() - self._began if self._began else 0.0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left of the budget, None if there is none."""
        return None if self._budget is None else max(0.0, self._budget - self.seconds)

    def __bool__(self) -> bool:
        if self.reason is None and self._began is not None and self.seconds_left == 0:
            self.reason = "time"
        if self.reason is None and time.monotonic() - self._looked >= _LOOK_EVERY_S:
            self._looked = time.monotonic()
            if shutil.disk_usage(self._folder).free < self._min_free_gb * 1e9:
                least = f"less than search.min_free_gb ({self._min_free_gb:g})"
                self.end_for_want_of_room(f"{describe_disk(self._folder)}, {least}")
        return self.reason is not None

    def end_for_want_of_room(self, full_disk: str) -> None:
        """Asks for the end, as nothing can be written: all goes on when there is room again."""
        if self.reason is None:
            self.reason, self.full_disk = "disk", full_disk

    @contextmanager
    def on_full_disk(self) -> Iterator[None]:
        """Ends what is done within where it finds no room, as asked for."""
        try:
            yield
        except Exception as error:
            if not is_full_disk(error):
                raise
            self.end_for_want_of_room(explain(error, self._folder))

    def interrupt(self) -> None:
        """Asks for the end, as Ctrl-C does."""
        self.reason = "interrupted"

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Takes the first SIGINT or SIGTERM as a request to stop; a second one has its way.

        Elsewhere than in the main thread signals can't be taken, and are left as they are.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def handle(number: int, frame: Any) -> None:
            self.interrupt()
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in before:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class StopAll(Stopper):
    """Makes Tune end all trials at once when asked to; the study is not told.

    Tune would give an actor 10 seconds for the step it is in. It is killed instead: the trial
    goes on from its last checkpoint when the search is resumed.

    Attributes:
        actors: Those that are to be killed, kept up to date by whoever sees trials start.
    """

    def __init__(self, request: StopRequest):
        self._request = request
        self.actors: dict[str, Any] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Called by Tune with each result; a single trial is never stopped here."""
        return False

    def stop_all(self) -> bool:
        """Called by Tune all the time."""
        if not self._request:
            return False
        for actor in self.actors.values():
            ray.kill(actor)
        self.actors.clear()
        return True
