"""What a user sees while a search runs: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lkd_tune.spec.measurement import Measurement
from lkd_tune.spec.run import TrialRecord
from lkd_tune.spec.trial import TrialSpec

_MOST_ROWS = 12


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
        self._phase = ""
        self._teacher: float | None = None
        self._specs: dict[str, TrialSpec] = {}
        self._last: dict[str, Measurement | None] = {}  # of trials that run now
        self._ended: Counter[str] = Counter()
        self._ended_before = 0
        self._best: tuple[float, str, TrialSpec] | None = None
        self._clock_began: float | None = None
        self._seconds_left: float | None = None
        self._estimated = False
        for record in records:
            if record.outcome and record.is_drawn:
                self._count(record.name, record.spec, record.outcome.state, record.score)
        self._ended_before = self._ended.total()
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=2,
            transient=True,
            auto_refresh=True,
        )

    def __enter__(self) -> View:
        if self._shows_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @property
    def _shows_live(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def phase(self, text: str) -> None:
        """Tells what the search is at now."""
        self._phase = text
        self._say(text)

    def note(self, text: str) -> None:
        """Tells something beside what the search is at."""
        self._say(text)

    def teacher_scored(self, score: float) -> None:
        """Tells the teacher's score on dev."""
        self._teacher = score
        self._say(f"teacher: {self._metric} {score:.4f} on dev")

    def teacher_measured(self, measurements: list[Measurement]) -> None:
        """Tells how far the teacher's training is."""
        if measurements:
            last = measurements[-1]
            at = f"step {last.step}/{last.total_steps}"
            self._phase = f"training the teacher: {at}, {self._metric} {last.score:.4f}"

    def targets_stored(self, progress: Path) -> None:
        """Tells how far the teacher's targets are: the share in a file that may not be there."""
        if progress.exists():
            self._phase = f"storing the teacher's targets: {progress.read_text('utf-8')}"

    def clock(self, seconds_left: float | None) -> None:
        """Tells that trials run now, and how long they may."""
        self._clock_began = self._clock_began or time.monotonic()
        self._seconds_left = seconds_left

    def trial_started(self, name: str, spec: TrialSpec) -> None:
        """Tells that a trial begins or goes on."""
        self._specs[name] = spec
        self._last[name] = None

    def measured(self, name: str, measurement: Measurement) -> None:
        """Tells a trial's measurement; with the first of all, about how long the search takes."""
        self._last[name] = measurement
        left = self._trials - self._ended.total()
        if not self._estimated and name.isdigit() and left > 1:
            self._estimated = True
            seconds = measurement.train_s / measurement.share
            at_once = max(1, len(self._last))
            self._say(
                f"about {left} trials × {_duration(seconds)}, {at_once} at a time: "
                f"{_duration(left * seconds / at_once)}, less what is stopped early"
                + ("" if self._score == self._metric else ", fine-tuning not counted")
            )

    def trial_paused(self, name: str) -> None:
        """Tells that a trial waits for the others of its population."""
        self._last.pop(name, None)

    def copied(self, lines: list[str]) -> None:
        """Tells which trials of a population go on as copies of others."""
        for line in lines:
            self._say(line)

    def trial_ended(self, name: str, state: str, score: float | None, error: str | None) -> None:
        """Tells a trial's end."""
        spec = self._specs.pop(name, None)
        self._last.pop(name, None)
        if name.isdigit() and spec is not None:
            self._count(name, spec, state, score)
        shown = f" {self._score} {score:.4f}" if score is not None else ""
        student = f", {_in_words(spec)}" if spec else ""
        number = f"[{self._ended.total()}/{self._trials}] " if name.isdigit() else ""
        self._say(f"{number}trial {name} {state}{shown}{student}{f': {error}' if error else ''}")

    def _count(self, name: str, spec: TrialSpec, state: str, score: float | None) -> None:
        self._ended[state] += 1
        if state != "complete" or score is None:
            return
        # Of equal scores the earlier trial's student is kept, whichever ended first.
        if not self._best or (-score, name) < (-self._best[0], self._best[1]):
            self._best = (score, name, spec)

    def _say(self, line: str) -> None:
        if not self._quiet:
            # Printed above a live table; in a log each line stands for itself.
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> Any:
        ended, running = self._ended, list(self._last.items())
        lines = [Text(self._phase, style="bold")]
        lines.append(
            Text(
                f"trials {ended.total()}/{self._trials}: {ended['complete']} complete, "
                f"{ended['stopped']} stopped early, {ended['failed']} failed, "
                f"{len([name for name, _ in running if name.isdigit()])} running"
                f"{self._time_left()}"
            )
        )
        if self._best:
            score, name, spec = self._best
            share = ""
            if self._teacher is not None and self._teacher > 0 and self._score == self._metric:
                share = f" ({max(0.0, score) / self._teacher:.1%} of the teacher's)"
            lines.append(
                Text(f"best {self._score} {score:.4f}{share}: trial {name}, {_in_words(spec)}")
            )
        if not running:
            return Group(*lines)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("trial", "step", self._metric, "student"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        for name, last in running[:_MOST_ROWS]:
            at = f"{last.step}/{last.total_steps}" if last else "starting"
            table.add_row(
                name, at, f"{last.score:.4f}" if last else "", _in_words(self._specs[name])
            )
        if len(running) > _MOST_ROWS:
            table.add_row("…", f"{len(running) - _MOST_ROWS} more")
        return Group(*lines, table)

    def _time_left(self) -> str:
        """Returns ', about … left': by the pace of this session, at most the budget."""
        left = [self._seconds_left] if self._seconds_left is not None else []
        done = self._ended.total() - self._ended_before
        if self._ended.total() >= self._trials:
            return ""
        if self._clock_began is not None and done:
            pace = (time.monotonic() - self._clock_began) / done
            left.append(pace * (self._trials - self._ended.total()))
        return f", about {_duration(min(left))} left" if left else ""


def _in_words(spec: TrialSpec) -> str:
    """Returns '3 layers, map 0 2 4 6', and whose student it starts from, if that of a trial."""
    layer_map = spec.layer_map
    word, layer = (
        each if isinstance(each, str) else " ".join(map(str, each))
        for each in (layer_map.word, layer_map.layer)
    )
    maps = f"map {word}" if word == layer else f"maps {word} / {layer}"
    depth = spec.student.depth
    width = f" of {spec.student.hidden_size}" if spec.student.hidden_size else ""
    after = f", after {spec.ancestor.trial}" if spec.ancestor else ""
    return f"{depth} layer{'s' if depth > 1 else ''}{width}, {maps}{after}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes >= 10 else f"{minutes}:{rest:02d} min"
