"""Events of a search as plain data, and the state of a search that a live table shows.

So a search in this process and one on a cluster have the same table: the events of a cluster's job
are lines of its log, each a JSON text after a record separator (RFC 7464).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from typing import Any

from rich.console import Group
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lkd_tune.results.formatting import duration

MAX_ROWS = 12
_TRIALS_FOR_PACE = 4
_SEPARATOR = "\x1e"
_EVENTS = (
    "search", "earlier", "phase", "detail", "teacher", "clock", "started", "estimated", "stepped",
    "measured", "paused", "ended",
)  # fmt: skip

Event = dict[str, Any]


def event_to_line(event: Event) -> str:
    """Returns an event as a line of a log."""
    return f"{_SEPARATOR}{json.dumps(event)}\n"


def event_from_line(line: str) -> Event | None:
    """Returns the event in a line of a log, None if it is a line of text."""
    if line.startswith(_SEPARATOR):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(line[1:])
    return None


class SearchState:
    """The state of a search according to its events; rich draws it.

    An event has a name, `event`, and the arguments of the method of this name.
    """

    def __init__(self) -> None:
        self._trials, self._metric, self._score = 0, "score", "score"
        self._further, self._further_s_each = 0, 0.0
        self._phase_began, self._detail = time.monotonic(), ""
        self._spinner = Spinner("dots")
        self._teacher: float | None = None
        self._students: dict[str, str] = {}
        self._running: dict[str, tuple[str, float | None] | None] = {}  # trial: last step, score
        self._ended: Counter[str] = Counter()
        self._ended_before = 0
        self._best: tuple[float, str, str] | None = None
        self._clock_began: float | None = None
        self._seconds_left: float | None = None
        self._expected_end: float | None = None

    def apply(self, event: Event) -> None:
        """Applies an event; ignores an unknown event, which may be of another version."""
        values = {**event}
        if (name := values.pop("event")) in _EVENTS:
            getattr(self, name)(**values)

    def search(self, trials: int, metric: str, score: str, further: int = 0) -> None:
        """A search, or a session of one, starts.

        Args:
            trials: Number of trials of the search.
            metric: Name of the metric that trials report at each evaluation.
            score: Name of the score of complete trials.
            further: Number of trainings after the trials: other seeds, the labels alone.
        """
        self._trials, self._metric, self._score = trials, metric, score
        self._further = further

    def phase(self, text: str) -> None:
        """Another phase of the search starts; its text is printed, so the table leaves it out."""
        self._phase_began, self._detail = time.monotonic(), ""

    def detail(self, text: str) -> None:
        """How far the phase is."""
        self._detail = text

    def teacher(self, score: float) -> None:
        """The teacher's score on dev is known."""
        self._teacher = score

    def clock(self, seconds_left: float | None) -> None:
        """Trials run, for at most this time; None: no limit."""
        self._clock_began = self._clock_began or time.monotonic()
        self._seconds_left = seconds_left

    def started(self, trial: str, student: str) -> None:
        """A trial starts or continues."""
        self._students[trial] = student
        self._running[trial] = None

    def estimated(self, seconds: float, further_s: float = 0.0) -> None:
        """All trials take about this time; used until the first of them has ended.

        Args:
            seconds: Time of the trials.
            further_s: Time of the trainings after them.
        """
        self._expected_end = time.monotonic() + seconds
        self._further_s_each = further_s / max(1, self._further)

    def stepped(self, trial: str, step: str) -> None:
        """A trial has reached a step between its measurements."""
        if trial in self._running:  # otherwise it has ended meanwhile
            last = self._running[trial]
            self._running[trial] = step, last[1] if last else None

    def measured(self, trial: str, step: str, score: float) -> None:
        """A trial has reported a measurement."""
        self._running[trial] = step, score

    def paused(self, trial: str) -> None:
        """A trial waits until there is room on a disk."""
        self._running.pop(trial, None)

    def ended(self, trial: str, state: str, score: float | None) -> None:
        """A trial has ended."""
        student = self._students.pop(trial, None)
        self._running.pop(trial, None)
        if trial.isdigit() and student is not None:
            self._count(trial, state, score, student)
        elif not trial.isdigit():
            self._further = max(0, self._further - 1)

    def earlier(self, trial: str, state: str, score: float | None, student: str) -> None:
        """A trial has ended in an earlier session."""
        self._count(trial, state, score, student)
        self._ended_before = self.number_ended

    @property
    def number_ended(self) -> int:
        """Number of trials that have ended, including earlier sessions."""
        return self._ended.total()

    @property
    def number_running(self) -> int:
        """Number of trials that are running."""
        return len(self._running)

    def _count(self, trial: str, state: str, score: float | None, student: str) -> None:
        self._ended[state] += 1
        if state != "complete" or score is None:
            return
        # Of equal scores the student of the earlier trial is kept, whichever ended first.
        if not self._best or (-score, trial) < (-self._best[0], self._best[1]):
            self._best = (score, trial, student)

    @property
    def counts(self) -> str:
        """A line with the number of trials by state, and the estimated time left."""
        ended = self._ended
        drawn = [name for name in self._running if name.isdigit()]
        return (
            f"trials {ended.total()}/{self._trials}: {ended['complete']} complete, "
            f"{ended['stopped']} stopped early, {ended['failed']} failed, "
            f"{len(drawn)} running{self._time_left()}"
        )

    def __rich__(self) -> Group:
        self._spinner.update(text=self._life_sign())
        lines: list[Any] = [self._spinner]
        if self._clock_began is not None:
            lines.append(Text(self.counts))
        if self._best:
            score, name, student = self._best
            share = ""
            if self._teacher is not None and self._teacher > 0 and self._score == self._metric:
                share = f" ({max(0.0, score) / self._teacher:.1%} of the teacher's)"
            lines.append(Text(f"best {self._score} {score:.4f}{share}: trial {name}, {student}"))
        return Group(*lines, self._table()) if self._running else Group(*lines)

    def _life_sign(self) -> str:
        since = duration(time.monotonic() - self._phase_began)
        return f"{since}, {self._detail}" if self._detail else since

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("trial", "step", self._metric, "student"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        for name, last in [*self._running.items()][:MAX_ROWS]:
            step, score = last or ("starting", None)
            shown = "" if score is None else f"{score:.4f}"
            table.add_row(name, step, shown, self._students[name])
        if len(self._running) > MAX_ROWS:
            table.add_row("…", f"{len(self._running) - MAX_ROWS} more")
        return table

    def _time_left(self) -> str:
        """Returns ', about … left', or '' if that is unknown.

        The estimate of the trials uses the time per trial in this session. Before a few trials have
        ended, it uses the speed of the first one's steps, because processes take long to start. It
        is at most what is left of the time budget. The trainings after the trials are added.
        """
        trials, left = self._trials - self._ended.total(), []
        if self._seconds_left is not None:
            left.append(self._seconds_left)
        done = self._ended.total() - self._ended_before
        if self._clock_began is not None and done >= (
            _TRIALS_FOR_PACE if self._expected_end else 1
        ):
            left.append((time.monotonic() - self._clock_began) / done * trials)
        elif self._expected_end is not None:
            left.append(max(0.0, self._expected_end - time.monotonic()))
        further_s = self._further * self._further_s_each
        trials_s = min(left, default=0.0) if trials > 0 else 0.0
        return f", about {duration(trials_s + further_s)} left" if trials_s or further_s else ""
