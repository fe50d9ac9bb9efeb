"""Stopping a search before its last trial: Ctrl-C, SIGTERM, the time budget, or a full disk.

The time budget ends only the trials of the search. Other seeds and the winner's student on the
labels alone still run, because they make the result of a short search trustworthy.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import ray
from ray.tune import Stopper

from lkd_tune.cluster.health import raise_if_ray_is_lost
from lkd_tune.files.disk import describe_disk, describe_full_disk, is_full_disk

_CHECK_DISK_EVERY_S = 2.0


class StopRequest:
    """Whether the search has to stop now, and why; true if it has to.

    Args:
        minutes: The time budget; None: no limit.
        seconds_before: Seconds of trials in earlier sessions.
        folder: The run folder, whose disk must not become full.
        min_free_gb: The search stops if less than this is free there.

    Attributes:
        reason: `interrupted`; `time` when the budget is used up, until the clock stops; `disk`
            when the run's disk is nearly full, or another disk is full; None while the search
            continues.
        full_disk: A description of that disk, None for another reason.
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
        self._disk_checked = float("-inf")
        self._budget = None if minutes is None else minutes * 60
        self._before = seconds_before
        self._began: float | None = None

    def start_clock(self) -> None:
        """Starts counting against the budget, when trials begin; preparation does not count."""
        self._began = time.monotonic()

    def stop_clock(self) -> None:
        """Stops counting, when the trials have ended; what follows has no budget."""
        self._before, self._began = self.seconds, None
        if self.reason == "time":
            self.reason, self.out_of_time = None, True

    @property
    def seconds(self) -> float:
        """Seconds of trials so far, including earlier sessions."""
        return self._before + (time.monotonic() - self._began if self._began else 0.0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left of the budget, None if there is none."""
        return None if self._budget is None else max(0.0, self._budget - self.seconds)

    def __bool__(self) -> bool:
        if self.reason is None and self._began is not None and self.seconds_left == 0:
            self.reason = "time"
        if self.reason is None and time.monotonic() - self._disk_checked >= _CHECK_DISK_EVERY_S:
            self._disk_checked = time.monotonic()
            if shutil.disk_usage(self._folder).free < self._min_free_gb * 1e9:
                least = f"less than search.min_free_gb ({self._min_free_gb:g})"
                self.stop_for_full_disk(f"{describe_disk(self._folder)}, {least}")
        return self.reason is not None

    def stop_for_full_disk(self, full_disk: str) -> None:
        """Requests a stop because a disk is full; the search can be resumed with more space."""
        if self.reason is None:
            self.reason, self.full_disk = "disk", full_disk

    @contextmanager
    def on_full_disk(self) -> Iterator[None]:
        """Turns an error of a full disk within the block into a request to stop."""
        try:
            yield
        except Exception as error:
            if not is_full_disk(error):
                raise
            self.stop_for_full_disk(describe_full_disk(error, self._folder))

    def interrupt(self) -> None:
        """Requests a stop, as Ctrl-C does. See `guard.py` for signals."""
        self.reason = "interrupted"


class StopAllTrials(Stopper):
    """Makes Tune end all trials at once on request; the study does not record it as their end.

    Tune would let an actor finish its step for up to 10 seconds. This kills the actor instead: the
    trial continues from its last checkpoint when the search is resumed.

    Attributes:
        actors: The actors of running trials by trial name, kept up to date by Tune's callback.
    """

    def __init__(self, request: StopRequest):
        self._request = request
        self.actors: dict[str, Any] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Returns False: no single trial stops here. Called by Tune with each result."""
        return False

    def stop_all(self) -> bool:
        """Returns whether to end all trials, after killing their actors. Tune polls this.

        Raises:
            RayLostError: If Ray has died.
        """
        raise_if_ray_is_lost()
        if not self._request:
            return False
        for actor in self.actors.values():
            ray.kill(actor)
        self.actors.clear()
        return True
