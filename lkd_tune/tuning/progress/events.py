"""What a live table shows of a search, made from events that are plain data.

So the table of a search in this process and that of one on a cluster are one and the same: there
the events are lines of the job's log, each a JSON text after a record separator (RFC 7464).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

MOST_ROWS = 12
_SEPARATOR = "\x1e"
_EVENTS = (
    "search", "earlier", "phase", "teacher", "clock", "started", "estimated", "stepped", "measured",
    "paused", "ended",
)  # fmt: skip

Event = dict[str, Any]


def to_line(event: Event) -> str:
    """Returns an event as a line of a log."""
    return f"{_SEPARATOR}{json.dumps(event)}\n"


def from_line(line: str) -> Event | None:
    """Returns the event that a line of a log is, None if it is one for people."""
    if line.startswith(_SEPARATOR):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(line[1:])
    return None


class Progress:
    """Where a search is, as far as events have told it; rich draws it.

    Each event has a name, `event`, and what that method takes which has this name.
    """

    def __init__(self) -> None:
        self._trials, self._metric, self._score = 0, "score", "score"
        self._phase = ""
        self._teacher: float | None = None
        self._students: dict[str, str] = {}
        self._at: dict[str, tuple[str, float | None] | None] = {}  # of trials that run now
        self._ended: Counter[str] = Counter()
        self._ended_before = 0
        self._best: tuple[float, str, str] | None = None
        self._clock_began: float | None = None
        self._seconds_left: float | None = None
        self._expected_end: float | None = None

    def take(self, event: Event) -> None:
        """Notes an event; one that is not known here, of another version, is passed over."""
        values = {**event}
        if (name := values.pop("event")) in _EVENTS:
            getattr(self, name)(**values)

    def search(self, trials: int, metric: str, score: str) -> None:
        """A search, or a session of one, begins; `score` is what its complete trials have."""
        self._trials, self._metric, self._score = trials, metric, score

    def phase(self, text: str) -> None:
        """The search is at something else now."""
        self._phase = text

    def teacher(self, score: float) -> None:
        """The teacher's score on dev is known."""
        self._teacher = score

    def clock(self, seconds_left: float | None) -> None:
        """Trials run, and may for so long."""
        self._clock_began = self._clock_began or time.monotonic()
        self._seconds_left = seconds_left

    def started(self, trial: str, student: str) -> None:
        """A trial begins or goes on."""
        self._students[trial] = student
        self._at[trial] = None

    def estimated(self, seconds: float) -> None:
        """All trials may take so long; from the first that has ended, their pace says more."""
        self._expected_end = time.monotonic() + seconds

    def stepped(self, trial: str, step: str) -> None:
        """A trial is so far, between its measurements."""
        if trial in self._at:  # it may have ended meanwhile
            last = self._at[trial]
            self._at[trial] = step, last[1] if last else None

    def measured(self, trial: str, step: str, score: float) -> None:
        """A trial has a measurement."""
        self._at[trial] = step, score

    def paused(self, trial: str) -> None:
        """A trial waits for others."""
        self._at.pop(trial, None)

    def ended(self, trial: str, state: str, score: float | None) -> None:
        """A trial has ended."""
        student = self._students.pop(trial, None)
        self._at.pop(trial, None)
        if trial.isdigit() and student is not None:
            self._count(trial, state, score, student)

    def earlier(self, trial: str, state: str, score: float | None, student: str) -> None:
        """A trial has ended in an earlier session."""
        self._count(trial, state, score, student)
        self._ended_before = self.number_ended

    @property
    def number_ended(self) -> int:
        """Trials that have ended, those of earlier sessions among them."""
        return self._ended.total()

    @property
    def number_running(self) -> int:
        """Trials that run now."""
        return len(self._at)

    def _count(self, trial: str, state: str, score: float | None, student: str) -> None:
        self._ended[state] += 1
        if state != "complete" or score is None:
            return
        # Of equal scores the earlier trial's student is kept, whichever ended first.
        if not self._best or (-score, trial) < (-self._best[0], self._best[1]):
            self._best = (score, trial, student)

    @property
    def counts(self) -> str:
        """How many trials have ended how, and about how long the others take."""
        ended = self._ended
        drawn = [name for name in self._at if name.isdigit()]
        return (
            f"trials {ended.total()}/{self._trials}: {ended['complete']} complete, "
            f"{ended['stopped']} stopped early, {ended['failed']} failed, "
            f"{len(drawn)} running{self._time_left()}"
        )

    def __rich__(self) -> Group:
        lines = [Text(self._phase, style="bold")]
        if self._trials:
            lines.append(Text(self.counts))
        if self._best:
            score, name, student = self._best
            share = ""
            if self._teacher is not None and self._teacher > 0 and self._score == self._metric:
                share = f" ({max(0.0, score) / self._teacher:.1%} of the teacher's)"
            lines.append(Text(f"best {self._score} {score:.4f}{share}: trial {name}, {student}"))
        return Group(*lines, self._table()) if self._at else Group(*lines)

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("trial", "step", self._metric, "student"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        for name, last in [*self._at.items()][:MOST_ROWS]:
            step, score = last or ("starting", None)
            shown = "" if score is None else f"{score:.4f}"
            table.add_row(name, step, shown, self._students[name])
        if len(self._at) > MOST_ROWS:
            table.add_row("…", f"{len(self._at) - MOST_ROWS} more")
        return table

    def _time_left(self) -> str:
        """Returns ', about … left': by the pace of this session, at most the budget.

        Before a trial of it has ended, by what the steps of the first one let expect.
        """
        left = [self._seconds_left] if self._seconds_left is not None else []
        done = self._ended.total() - self._ended_before
        if self._ended.total() >= self._trials:
            return ""
        if self._clock_began is not None and done:
            pace = (time.monotonic() - self._clock_began) / done
            left.append(pace * (self._trials - self._ended.total()))
        elif self._expected_end is not None:
            left.append(max(0.0, self._expected_end - time.monotonic()))
        return f", about {duration(min(left))} left" if left else ""


def duration(seconds: float) -> str:
    """Returns a time in words: 1:05 min, 11 min, 2 h 1 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes}:{rest:02d} min"
