"""What a search prints while it runs: lines, and on a terminal or in a notebook a live table."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from lkd_tune.config.settings.recipes import DEFAULT_RECIPE
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.settings.student import model_name
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement, TrainingProgress
from lkd_tune.records.trial_record import LABELS_ALONE, TrialRecord
from lkd_tune.results.formatting import duration, layer_map
from lkd_tune.tuning.progress.events import SearchState, event_from_line, event_to_line
from lkd_tune.tuning.progress.notebook import NotebookTable

# Environment variable that is set for a search that runs as a cluster job. The job's log then
# contains the events, so that `lkd-tune logs --follow` can show the live table.
EVENTS_VARIABLE = "LKD_TUNE_EVENTS"
BEGUN = "begun"
# Limits how often frequent events are written to a log; the others are always written.
_FREQUENT_EVENT_INTERVAL_S = 10.0
# Searches with fewer trials print no summaries, because a line per trial is enough.
_MIN_TRIALS_FOR_SUMMARY = 8


def live_table(state: SearchState, console: Console) -> Live:
    """Returns the live table of a search, which stays below the printed lines."""
    return Live(
        get_renderable=lambda: state,
        console=console,
        refresh_per_second=2,
        transient=True,
        auto_refresh=True,
    )


class View:
    """Prints the progress of a search, from the calls that report it.

    Args:
        trials: Number of trials of the search.
        metric: Name of the metric that trials report at each evaluation.
        score: Name of the score of complete trials; default: the metric.
        further: Number of trainings after the trials.
        quiet: Whether to print nothing.
        console: Where to print; default: standard output.
    """

    def __init__(
        self,
        trials: int,
        metric: str,
        *,
        score: str | None = None,
        further: int = 0,
        quiet: bool = False,
        console: Console | None = None,
    ):
        self._trials, self._metric, self._quiet = trials, metric, quiet
        self._further = further
        self._score = score or metric
        self._console = console or Console()
        self._logs_events = not quiet and EVENTS_VARIABLE in os.environ
        self._last_frequent: dict[tuple[str, str | None], tuple[float, dict[str, Any]]] = {}
        self._state = SearchState()
        self._live: Live | NotebookTable = (
            NotebookTable(self._state)
            if self._console.is_jupyter
            else live_table(self._state, self._console)
        )
        self._specs: dict[str, TrialSpec] = {}
        self._on_labels_alone: set[str] = set()
        self._estimated = self._teacher_estimated = False
        self._first_progress: dict[str, TrainingProgress] = {}
        # Trainings of the phase: how many have ended, of how many.
        self._ended_in_phase, self._of_phase = 0, 0
        self._announce()

    @classmethod
    def of_search(cls, settings: SpaceSettings, *, quiet: bool) -> View:
        """Returns the view of a search, which tells how long all of it takes."""
        confirm, baseline = settings.confirm, settings.search.baseline
        seeds = confirm.seeds if confirm else 0
        further = (confirm.top * seeds if confirm else 0) + (1 + seeds if baseline else 0)
        return cls(
            settings.search.trials,
            settings.task.metric,
            score=settings.score_name,
            further=further,
            quiet=quiet,
        )

    def __enter__(self) -> View:
        if (self._console.is_terminal or self._console.is_jupyter) and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def earlier(self, records: Iterable[TrialRecord]) -> None:
        """Counts the trials of earlier sessions that have ended."""
        ended = [record for record in records if record.outcome is not None]
        self._further = max(0, self._further - sum(not record.is_drawn for record in ended))
        self._announce()
        for record in ended:
            if record.is_drawn and record.outcome is not None:
                self._event(
                    "earlier",
                    trial=record.name,
                    state=record.outcome.state,
                    score=record.score,
                    student=_describe_student(record.spec),
                )

    def log_begun(self) -> None:
        """Logs that all checks have passed, for the client that submitted the job."""
        if EVENTS_VARIABLE in os.environ:
            self._console.file.write(event_to_line({"event": BEGUN}))
            self._console.file.flush()

    def phase(self, text: str, *, trainings: int = 0) -> None:
        """Prints the phase that starts now.

        Args:
            text: What is done in it.
            trainings: How many trainings it has, which are numbered as they end.
        """
        self._ended_in_phase, self._of_phase = 0, trainings
        self._event("phase", text=text)
        self._print(text)

    def note(self, text: str) -> None:
        """Prints a note that does not change the phase."""
        self._print(text)

    def teacher_scored(self, score: float) -> None:
        """Prints the teacher's score on dev."""
        self._event("teacher", score=score)
        self._print(f"teacher: {self._metric} {score:.4f} on dev")

    def teacher_trains(
        self, measurements: list[Measurement], progress: TrainingProgress | None
    ) -> None:
        """Shows the progress of the teacher's training, and prints once how long it takes."""
        if progress is None:
            return
        seconds = None if self._teacher_estimated else self._total_s("teacher", progress)
        if seconds is not None:
            self._teacher_estimated = True
            self._print(f"the teacher's training takes about {duration(seconds)}")
        left = duration(progress.remaining_s)
        score = f", {self._metric} {measurements[-1].score:.4f}" if measurements else ""
        text = f"step {_steps(progress)}{score}, about {left} left"
        self._event("detail", frequent=True, text=text)

    def targets_stored(self, file: Path) -> None:
        """Shows the stored share of the teacher's targets, read from a file if it exists."""
        if file.exists():
            self._event("detail", frequent=True, text=file.read_text("utf-8"))

    def clock(self, seconds_left: float | None) -> None:
        """Shows that trials run, and the remaining time limit; None if there is no limit."""
        self._event("clock", frequent=True, seconds_left=seconds_left)

    def trial_started(self, name: str, spec: TrialSpec, *, origin: str | None = None) -> None:
        """Shows that a trial starts or continues."""
        self._specs[name] = spec
        if origin == LABELS_ALONE:
            self._on_labels_alone.add(name)
        self._event("started", trial=self._label(name), student=_describe_student(spec))

    def measured(self, name: str, measurement: Measurement) -> None:
        """Shows a trial's measurement."""
        progress = TrainingProgress(measurement.step, measurement.total_steps, measurement.train_s)
        label = self._label(name)
        self._event("measured", trial=label, step=_steps(progress), score=measurement.score)
        self._estimate(label, progress)

    def stepped(self, name: str, progress: TrainingProgress) -> None:
        """Shows the step that a trial has reached between its measurements."""
        label = self._label(name)
        self._event("stepped", frequent=True, trial=label, step=_steps(progress))
        self._estimate(label, progress)

    def trial_paused(self, name: str) -> None:
        """Shows that a trial waits for free disk space."""
        self._event("paused", trial=self._label(name))

    def trial_ended(self, name: str, state: str, score: float | None, error: str | None) -> None:
        """Prints the outcome of a trial, and a summary after each quarter of the trials."""
        spec, label = self._specs.pop(name, None), self._label(name)
        self._event("ended", trial=label, state=state, score=score)
        shown = f" {self._score} {score:.4f}" if score is not None else ""
        student = f", {_describe_student(spec)}" if spec else ""
        number = ""
        if label.isdigit():
            number = f"[{self._state.number_ended}/{self._trials}] "
        elif self._of_phase:
            self._ended_in_phase += 1
            number = f"[{self._ended_in_phase}/{self._of_phase}] "
        self._print(f"{number}trial {label} {state}{shown}{student}{f': {error}' if error else ''}")
        if label.isdigit() and self._is_quarter(self._state.number_ended):
            self._print(self._state.counts)

    def _announce(self) -> None:
        """Tells how many trials and further trainings there are."""
        self._event(
            "search",
            trials=self._trials,
            metric=self._metric,
            score=self._score,
            further=self._further,
        )

    def _label(self, name: str) -> str:
        """Returns a trial's name, with an addition unless it is one of the search's trials.

        So only the search's trials have numbers for names, by which `SearchState` counts them.
        """
        return f"{name} ({LABELS_ALONE})" if name in self._on_labels_alone else name

    def _estimate(self, name: str, progress: TrainingProgress) -> None:
        """Prints an estimate of the search's duration, once the speed of a first trial is known."""
        left = self._trials - self._state.number_ended
        if self._estimated or not name.isdigit() or left < 2:
            return
        if (trial_s := self._total_s(name, progress)) is None:
            return
        self._estimated = True
        at_once = max(1, self._state.number_running)
        seconds, further_s = (count * trial_s / at_once for count in (left, self._further))
        self._event("estimated", seconds=seconds, further_s=further_s)
        then = ""
        if self._further:
            then = f"; then {self._further} trainings of the best: {duration(further_s)}"
        self._print(
            f"about {left} trials × {duration(trial_s)}, {at_once} at a time: "
            f"{duration(seconds)}, or less if trials stop early{then}"
            + ("" if self._score == self._metric else ", fine-tuning not counted")
        )

    def _total_s(self, name: str, progress: TrainingProgress) -> float | None:
        """Returns the estimated seconds of a whole training; None at its first report."""
        first = self._first_progress.get(name)
        if first is None or progress.step <= first.step:  # new, or restarted from a checkpoint
            self._first_progress[name] = progress
            return None
        return progress.total_s_since(first)

    def _is_quarter(self, ended: int) -> bool:
        quarters, before = (4 * number // self._trials for number in (ended, ended - 1))
        return quarters > before and _MIN_TRIALS_FOR_SUMMARY <= self._trials > ended

    def _event(self, name: str, *, frequent: bool = False, **values: Any) -> None:
        event = {"event": name, **values}
        self._state.apply(event)
        if not self._logs_events:
            return
        if frequent:
            kind = name, values.get("trial")
            at, last = self._last_frequent.get(kind, (-_FREQUENT_EVENT_INTERVAL_S, {}))
            if event == last or time.monotonic() - at < _FREQUENT_EVENT_INTERVAL_S:
                return
            self._last_frequent[kind] = time.monotonic(), event
        self._console.file.write(event_to_line(event))
        self._console.file.flush()

    def _print(self, line: str) -> None:
        if not self._quiet:
            _print_line(self._console, line)


class LogView:
    """Shows the log of a search as the search itself would print it here; a context manager.

    Args:
        live: Whether to show the live table, if there is a terminal.
        console: Where to print; default: standard output.
    """

    def __init__(self, *, live: bool, console: Console | None = None):
        self._console = console or Console()
        self._state = SearchState()
        self._table = live_table(self._state, self._console)
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
        """Shows the next part of the log, which may end within a line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            event = event_from_line(line)
            if event is None:
                _print_line(self._console, line)
            else:
                self._state.apply(event)


def _print_line(console: Console, line: str) -> None:
    if console.is_jupyter:
        print(line, flush=True)  # rich would make each line an output of its own
        return
    # rich prints the line above the live table, if there is one.
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _steps(progress: TrainingProgress) -> str:
    return f"{progress.step}/{progress.total_steps}"


def _describe_student(spec: TrialSpec) -> str:
    """Returns '3 layers, map 0-2-4-6', after a recipe other than the default."""
    word, layer = layer_map(spec.layer_map.word), layer_map(spec.layer_map.layer)
    maps = f", map {word}" if word == layer else f", maps {word} / {layer}"
    depth = spec.student.depth
    start = f", from {model_name(spec.student.init)}" if spec.student.starts_from_model else ""
    width = f", hidden size {spec.student.hidden_size}" if spec.student.hidden_size else ""
    named = spec.losses.recipe
    recipe = f"{named}, " if named != DEFAULT_RECIPE else ""
    maps = maps if spec.has_layer_map else ""
    return f"{recipe}{depth} layer{'s' if depth > 1 else ''}{width}{start}{maps}"
