"""What a user sees while a search runs: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.pace import Pace
from lkd_tune.records.run import TrialRecord
from lkd_tune.tuning.progress.events import Progress, duration, from_line, to_line

# Set for a search whose output is a job's log: it holds the events too, for who follows it.
EVENTS_VARIABLE = "LKD_TUNE_EVENTS"
BEGUN = "begun"
# Events that come several times a second are written to a log so often.
_SELDOM_S = 10.0
# In a search of fewer trials each one is told, and that is enough.
_LEAST_TO_SUM_UP = 8


def live_table(progress: Progress, console: Console) -> Live:
    """Returns the table of a search, below what is printed."""
    return Live(
        get_renderable=lambda: progress,
        console=console,
        refresh_per_second=2,
        transient=True,
        auto_refresh=True,
    )


class View:
    """Follows a search; told of events, it never asks.

    Args:
        trials: Trials in all.
        metric: Of the task, that a trial has at each measurement.
        records: Trials of earlier sessions.
        score: Of complete trials, where that is something else than the metric.
        quiet: Shows nothing.
        console: Where to; none: standard output.
    """

    def __init__(
        self,
        trials: int,
        metric: str,
        records: Iterable[TrialRecord] = (),
        *,
        score: str | None = None,
        quiet: bool = False,
        console: Console | None = None,
    ):
        self._trials, self._metric, self._quiet = trials, metric, quiet
        self._score = score or metric
        self._console = console or Console()
        self._told = not quiet and EVENTS_VARIABLE in os.environ
        self._told_last: dict[tuple[str, str | None], tuple[float, dict[str, Any]]] = {}
        self._progress = Progress()
        self._specs: dict[str, TrialSpec] = {}
        self._estimated = self._teacher_estimated = False
        self._first_paces: dict[str, Pace] = {}
        self._event("search", trials=trials, metric=metric, score=self._score)
        for record in records:
            if record.outcome and record.is_drawn:
                self._event(
                    "earlier",
                    trial=record.name,
                    state=record.outcome.state,
                    score=record.score,
                    student=_in_words(record.spec),
                )
        self._live = live_table(self._progress, self._console)

    def __enter__(self) -> View:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begun(self) -> None:
        """Tells who follows the log, also of a quiet search, that all has been checked."""
        if EVENTS_VARIABLE in os.environ:
            self._console.file.write(to_line({"event": BEGUN}))
            self._console.file.flush()

    def phase(self, text: str) -> None:
        """Tells what the search is at now."""
        self._event("phase", text=text)
        self._say(text)

    def note(self, text: str) -> None:
        """Tells something beside what the search is at."""
        self._say(text)

    def teacher_scored(self, score: float) -> None:
        """Tells the teacher's score on dev."""
        self._event("teacher", score=score)
        self._say(f"teacher: {self._metric} {score:.4f} on dev")

    def teacher_trains(self, measurements: list[Measurement], pace: Pace | None) -> None:
        """Tells how far the teacher's training is, and once about how long it takes."""
        if pace is None:
            return
        if not self._teacher_estimated and (seconds := self._whole_s("teacher", pace)) is not None:
            self._teacher_estimated = True
            self._say(f"the teacher's training takes about {duration(seconds)}")
        left = duration(pace.left_s)
        score = f", {self._metric} {measurements[-1].score:.4f}" if measurements else ""
        text = f"training the teacher: step {_steps(pace)}{score}, about {left} left"
        self._event("phase", seldom=True, text=text)

    def targets_stored(self, progress: Path) -> None:
        """Tells how far the teacher's targets are: the share in a file that may not be there."""
        if progress.exists():
            text = f"storing the teacher's targets: {progress.read_text('utf-8')}"
            self._event("phase", seldom=True, text=text)

    def clock(self, seconds_left: float | None) -> None:
        """Tells that trials run now, and how long they may."""
        self._event("clock", seldom=True, seconds_left=seconds_left)

    def trial_started(self, name: str, spec: TrialSpec) -> None:
        """Tells that a trial begins or goes on."""
        self._specs[name] = spec
        self._event("started", trial=name, student=_in_words(spec))

    def measured(self, name: str, measurement: Measurement) -> None:
        """Tells a trial's measurement."""
        pace = Pace(measurement.step, measurement.total_steps, measurement.train_s)
        self._event("measured", trial=name, step=_steps(pace), score=measurement.score)
        self._estimate(name, pace)

    def paced(self, name: str, pace: Pace) -> None:
        """Tells how far a trial is, between its measurements."""
        self._event("stepped", seldom=True, trial=name, step=_steps(pace))
        self._estimate(name, pace)

    def trial_paused(self, name: str) -> None:
        """Tells that a trial waits for the others of its population."""
        self._event("paused", trial=name)

    def copied(self, lines: list[str]) -> None:
        """Tells which trials of a population go on as copies of others."""
        for line in lines:
            self._say(line)

    def trial_ended(self, name: str, state: str, score: float | None, error: str | None) -> None:
        """Tells a trial's end; after every quarter of them what they came to, and what is left."""
        spec = self._specs.pop(name, None)
        self._event("ended", trial=name, state=state, score=score)
        shown = f" {self._score} {score:.4f}" if score is not None else ""
        student = f", {_in_words(spec)}" if spec else ""
        number = f"[{self._progress.number_ended}/{self._trials}] " if name.isdigit() else ""
        self._say(f"{number}trial {name} {state}{shown}{student}{f': {error}' if error else ''}")
        if name.isdigit() and self._is_quarter(self._progress.number_ended):
            self._say(self._progress.counts)

    def _estimate(self, name: str, pace: Pace) -> None:
        """Tells about how long the search takes, as soon as a first trial's pace is known."""
        left = self._trials - self._progress.number_ended
        if self._estimated or not name.isdigit() or left < 2:
            return
        if (trial_s := self._whole_s(name, pace)) is None:
            return
        self._estimated = True
        at_once = max(1, self._progress.number_running)
        seconds = left * trial_s / at_once
        self._event("estimated", seconds=seconds)
        self._say(
            f"about {left} trials × {duration(trial_s)}, {at_once} at a time: "
            f"{duration(seconds)}, less what is stopped early"
            + ("" if self._score == self._metric else ", fine-tuning not counted")
        )

    def _whole_s(self, name: str, pace: Pace) -> float | None:
        """Returns the seconds of a whole training, None at the first look at it."""
        first = self._first_paces.get(name)
        if first is None or pace.step <= first.step:  # or it went back to a checkpoint
            self._first_paces[name] = pace
            return None
        return pace.whole_s_since(first)

    def _is_quarter(self, ended: int) -> bool:
        quarters, before = (4 * number // self._trials for number in (ended, ended - 1))
        return quarters > before and _LEAST_TO_SUM_UP <= self._trials > ended

    def _event(self, name: str, *, seldom: bool = False, **values: Any) -> None:
        event = {"event": name, **values}
        self._progress.take(event)
        if not self._told:
            return
        if seldom:
            kind = name, values.get("trial")
            at, last = self._told_last.get(kind, (-_SELDOM_S, {}))
            if event == last or time.monotonic() - at < _SELDOM_S:
                return
            self._told_last[kind] = time.monotonic(), event
        self._console.file.write(to_line(event))
        self._console.file.flush()

    def _say(self, line: str) -> None:
        if not self._quiet:
            _print_line(self._console, line)


class LogView:
    """Shows the log of a search as the search itself would be seen here; a context.

    Args:
        live: Whether to show the table, where there is a terminal.
        console: Where to; none: standard output.
    """

    def __init__(self, *, live: bool, console: Console | None = None):
        self._console = console or Console()
        self._progress = Progress()
        self._table = live_table(self._progress, self._console)
        self._live = live and self._console.is_terminal
        self._rest = ""

    def __enter__(self) -> LogView:
        if self._live:
            self._table.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._table.stop()
        if self._rest:
            self.feed("\n")

    def feed(self, text: str) -> None:
        """Takes the next part of the log, cut anywhere."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            event = from_line(line)
            if event is None:
                _print_line(self._console, line)
            else:
                self._progress.take(event)


def _print_line(console: Console, line: str) -> None:
    # Printed above a live table; in a log each line stands for itself.
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _steps(pace: Pace) -> str:
    return f"{pace.step}/{pace.total_steps}"


def _in_words(spec: TrialSpec) -> str:
    """Returns '3 layers, map 0 2 4 6'."""
    layer_map = spec.layer_map
    word, layer = (
        each if isinstance(each, str) else " ".join(map(str, each))
        for each in (layer_map.word, layer_map.layer)
    )
    maps = f"map {word}" if word == layer else f"maps {word} / {layer}"
    depth = spec.student.depth
    width = f" of {spec.student.hidden_size}" if spec.student.hidden_size else ""
    return f"{depth} layer{'s' if depth > 1 else ''}{width}, {maps}"
