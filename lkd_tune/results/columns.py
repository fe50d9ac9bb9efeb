"""The columns of the leaderboard: how each is computed, and where and how it is shown.

`COLUMNS` has one entry for each field of `Row`. leaderboard.csv and leaderboard.json hold all of
them in the order of `Row`; the terminal and the page show some of them in the order of `COLUMNS`;
trackers log some of them when a trial has ended. To add a column, add a field to `Row` and an entry
here.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lkd_tune.config.objectives import COSTS
from lkd_tune.config.settings.student import INIT_KEYWORDS, model_name
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.ranking import Ranking
from lkd_tune.records.trial_record import TrialRecord
from lkd_tune.results.formatting import (
    duration,
    interval,
    layer_map,
    layer_maps,
    millions,
    number,
    percent,
    short,
)
from lkd_tune.results.leaderboard import Leaderboard, Row


@dataclass(frozen=True)
class TrialContext:
    """A trial, and what of its run a row is computed from.

    Attributes:
        record: The trial as its folder has it.
        ranking: The order of the run's trials.
        metric: Name of the score.
        teacher_score: The teacher's score on dev, if it is known.
        confirmed: The trial's entry in confirmation.json; empty if it was not confirmed.
        test: The trial's metrics on test; empty if they were not measured.
    """

    record: TrialRecord
    ranking: Ranking
    metric: str
    teacher_score: float | None
    confirmed: Mapping[str, Any]
    test: Mapping[str, float]

    @property
    def spec(self) -> TrialSpec:
        """The trial's settings."""
        return self.record.spec

    @property
    def last(self) -> Measurement | None:
        """The last measurement, None before the first."""
        return self.record.measurements[-1] if self.record.measurements else None

    def of_last(self, name: str, default: Any = None) -> Any:
        """Returns a value of the last measurement; the default before the first."""
        return getattr(self.last, name, default)

    def of_size(self, name: str) -> Any:
        """Returns what the student's architecture costs; None before it was measured."""
        return getattr(self.record.size, name, None)

    def of_outcome(self, name: str) -> Any:
        """Returns a value of the trial's outcome; None while it runs."""
        return getattr(self.record.outcome, name, None)


@dataclass(frozen=True)
class Shown:
    """How the terminal or the page shows a column.

    Attributes:
        header: The column's header, or a function that returns it.
        text: Returns the text of a trial's cell.
        teacher: Returns the text of the teacher's cell; only the terminal has that row.
        when: Whether the column is shown for a leaderboard.
        is_number: Whether cells are aligned to the right.
        wraps: Whether a narrow terminal may break the cells into lines.
        dropped: A terminal that is too narrow for all columns leaves out those with the lowest
            number first; None: it shows the column in any case.
    """

    header: str | Callable[[Leaderboard], str]
    text: Callable[[Row, Leaderboard], str]
    teacher: Callable[[Leaderboard], str] = lambda board: ""
    when: Callable[[Leaderboard], bool] = lambda board: True
    is_number: bool = True
    wraps: bool = False
    dropped: int | None = None

    def header_of(self, board: Leaderboard) -> str:
        """Returns the column's header."""
        return self.header if isinstance(self.header, str) else self.header(board)


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard.

    Attributes:
        name: The field of `Row`, the column of leaderboard.csv, the key in leaderboard.json.
        value: Computes it from a trial.
        terminal: How the terminal shows it; None: the terminal does not.
        page: How the page shows it; None: the page does not.
        tracked: Computes what trackers log when the trial has ended; None: they do not log it.
    """

    name: str
    value: Callable[[TrialContext], Any]
    terminal: Shown | None = None
    page: Shown | None = None
    tracked: Callable[[TrialRecord], float | None] | None = None


def energy_j(record: TrialRecord) -> float | None:
    """Returns the joules of a trial's training and, if there was one, its fine-tuning."""
    ends = [*record.measurements[-1:], *([record.fine_tuned] if record.fine_tuned else [])]
    known = [end.energy_j for end in ends if end.energy_j is not None]
    return sum(known) if known else None


def terminal_columns(board: Leaderboard) -> list[Shown]:
    """Returns the columns that the terminal shows for a leaderboard, in their order."""
    return [*_shown(board, (column.terminal for column in COLUMNS))]


def page_columns(board: Leaderboard) -> list[Shown]:
    """Returns the columns that the page shows for a leaderboard, in their order."""
    return [*_shown(board, (column.page for column in COLUMNS))]


def tracked_results(record: TrialRecord) -> dict[str, float]:
    """Returns what trackers log when a trial has ended, by the name of the column."""
    found = {column.name: column.tracked(record) for column in COLUMNS if column.tracked}
    return {name: float(value) for name, value in found.items() if value is not None}


def _shown(board: Leaderboard, columns: Iterator[Shown | None]) -> Iterator[Shown]:
    return (column for column in columns if column is not None and column.when(board))


def _share(trial: TrialContext) -> float | None:
    score, teacher = trial.record.score, trial.teacher_score
    if score is None or teacher is None or teacher <= 0:
        return None
    return max(0.0, score / teacher)


def _peak(trial: TrialContext, name: str) -> float | None:
    """Returns the largest value of all measurements, the fine-tuning's included."""
    record = trial.record
    ends = [*record.measurements, *([record.fine_tuned] if record.fine_tuned else [])]
    return max((getattr(end, name) for end in ends), default=None)


def _layers(trial: TrialContext) -> str | None:
    layers = trial.spec.student.layers
    return None if layers == "matched" else layer_map(layers)


def _start_text(row: Row, board: Leaderboard) -> str:
    return row.layers or ("" if row.init in INIT_KEYWORDS else model_name(row.init))


def _starts_differ(board: Leaderboard) -> bool:
    return any(_start_text(row, board) for row in board.rows)


def _map(trial: TrialContext, name: str) -> str:
    """Returns one of a trial's layer maps, '' if it has no effect."""
    spec = trial.spec
    return layer_map(getattr(spec.layer_map, name)) if spec.has_layer_map else ""


def _relations_until(trial: TrialContext) -> float | None:
    losses = trial.spec.losses
    return losses.relations_until if losses.relations_end else None


def _test_mean(trial: TrialContext) -> float | None:
    scores = trial.confirmed.get("test_scores")
    return statistics.mean(scores) if scores else None


def _of_size(name: str) -> Callable[[TrialRecord], float | None]:
    return lambda record: getattr(record.size, name, None)


def _of_outcome(name: str) -> Callable[[TrialRecord], float | None]:
    return lambda record: getattr(record.outcome, name, None)


def _rank_text(row: Row, board: Leaderboard) -> str:
    if row.rank is None:
        return ""
    return f"{row.rank}{'*' if row.on_front and len(board.objectives) > 1 else ''}"


def _rank_or_state(row: Row, board: Leaderboard) -> str:
    """Returns the rank; of trials without one the state, unless that is complete."""
    return _rank_text(row, board) or (row.state if row.state != "complete" else "")


def _depth_text(row: Row, board: Leaderboard) -> str:
    """Returns `3`, or `3 × 192` of a student with a width of its own."""
    return f"{row.depth} × {row.hidden_size}" if row.hidden_size else str(row.depth)


def _maps_text(row: Row, board: Leaderboard) -> str:
    return layer_maps(row.word_map, row.layer_map)


def _recipe_text(row: Row, board: Leaderboard) -> str:
    return row.recipe


def _recipes_differ(board: Leaderboard) -> bool:
    """Whether the numbered trials have different recipes."""
    return len({row.recipe for row in board.rows if row.name.isdigit()}) > 1


def _unlabelled_text(row: Row, board: Leaderboard) -> str:
    return f"{row.unlabelled:,}"


def _any_unlabelled(board: Leaderboard) -> bool:
    return any(row.unlabelled for row in board.rows)


def _mean_with_tie(row: Row, board: Leaderboard) -> str:
    tie = " =" if row.ties_with_best and row.rank != 1 else ""
    return interval(row.mean, row.high) + tie


def _teacher_test(board: Leaderboard) -> str:
    return number(board.teacher.get("test", {}).get(board.metric))


def _teacher_seconds(board: Leaderboard) -> str:
    cost = board.costs.get("teacher")
    return f"{cost['wall_s']:.0f}" if cost else ""


def _cost(name: str, page: Shown | None = None) -> Column:
    """Returns the column of a cost; the terminal shows it if it is an objective of the run."""

    def text(row: Row, board: Leaderboard) -> str:
        value = getattr(row, name)
        return "" if value is None else short(value / COSTS[name].scale)

    return Column(
        name,
        lambda trial: trial.of_size(name),
        terminal=Shown(COSTS[name].heading, text, when=lambda board: name in board.objectives),
        page=page,
        tracked=_of_size(name),
    )


COLUMNS: tuple[Column, ...] = (
    Column(
        "rank",
        lambda trial: trial.ranking.rank(trial.record.name),
        terminal=Shown("", _rank_or_state, is_number=False),
        page=Shown("rank", _rank_text, is_number=False),
    ),
    Column("on_front", lambda trial: trial.record.name in trial.ranking.front),
    Column(
        "name",
        lambda trial: trial.record.name,
        terminal=Shown(
            "trial", lambda row, board: row.name, lambda board: "teacher", is_number=False
        ),
        page=Shown(
            "trial",
            lambda row, board: row.name,
            is_number=False,
        ),
    ),
    Column(
        "recipe",
        lambda trial: trial.spec.losses.recipe,
        terminal=Shown("recipe", _recipe_text, when=_recipes_differ, is_number=False),
        page=Shown("recipe", _recipe_text, when=_recipes_differ, is_number=False),
    ),
    Column("origin", lambda trial: trial.record.origin),
    Column("distilled", lambda trial: trial.spec.losses.needs_teacher),
    Column("state", lambda trial: trial.record.state),
    Column(
        "score",
        lambda trial: trial.record.score,
        terminal=Shown(
            "score",
            lambda row, board: number(row.score),
            lambda board: number(board.teacher_score),
        ),
        page=Shown(lambda board: board.metric, lambda row, board: number(row.score)),
        tracked=lambda record: record.score if record.state == "complete" else None,
    ),
    Column(
        "task_score",
        lambda trial: trial.of_last("score") if trial.spec.evaluate_on is not None else None,
        terminal=Shown(
            lambda board: board.task_metric,
            lambda row, board: number(row.task_score),
            lambda board: number(board.teacher["dev"].get(board.task_metric)),
            when=lambda board: board.task_metric != board.metric,
        ),
    ),
    Column(
        "mean",
        lambda trial: trial.confirmed.get("mean"),
        terminal=Shown(
            "mean ± 95 %",
            lambda row, board: interval(row.mean, row.high),
            when=lambda board: board.seeds > 0,
        ),
        page=Shown("mean ± 95 %", _mean_with_tie, when=lambda board: board.seeds > 0),
    ),
    Column("low", lambda trial: trial.confirmed.get("low")),
    Column("high", lambda trial: trial.confirmed.get("high")),
    Column("failed_seeds", lambda trial: len(trial.confirmed.get("failed", []))),
    Column("ties_with_best", lambda trial: trial.confirmed.get("ties_with_best")),
    Column(
        "share",
        _share,
        terminal=Shown("share", lambda row, board: percent(row.share), dropped=4),
        page=Shown("of teacher", lambda row, board: percent(row.share, 1)),
    ),
    Column(
        "depth",
        lambda trial: trial.spec.student.depth,
        terminal=Shown("depth", _depth_text, lambda board: str(board.teacher["layers"]), dropped=3),
        page=Shown("depth", _depth_text),
    ),
    Column("init", lambda trial: trial.spec.student.init),
    Column(
        "layers",
        _layers,
        terminal=Shown("starts from", _start_text, when=_starts_differ, is_number=False),
        page=Shown("starts from", _start_text, when=_starts_differ, is_number=False),
    ),
    Column("hidden_size", lambda trial: trial.spec.student.hidden_size),
    Column("heads", lambda trial: trial.spec.student.heads),
    Column("intermediate_size", lambda trial: trial.spec.student.intermediate_size),
    Column(
        "word_map",
        lambda trial: _map(trial, "word"),
        terminal=Shown("layer map", _maps_text, is_number=False, wraps=True),
        page=Shown("layer map", _maps_text, is_number=False),
    ),
    Column("layer_map", lambda trial: _map(trial, "layer")),
    Column(
        "parameters",
        lambda trial: trial.of_last("parameters"),
        terminal=Shown(
            COSTS["parameters"].heading,
            lambda row, board: millions(row.parameters),
            lambda board: millions(board.teacher["parameters"]),
            dropped=5,
        ),
        page=Shown("parameters", lambda row, board: millions(row.parameters)),
        tracked=_of_size("parameters"),
    ),
    Column("embedding_parameters", lambda trial: trial.of_size("embedding_parameters")),
    Column("vocab", lambda trial: trial.spec.student.vocab),
    _cost("flops"),
    _cost("latency_ms", page=Shown("ms", lambda row, board: short(row.latency_ms))),
    _cost("latency_ms_batch_32"),
    Column("device", lambda trial: trial.of_size("device")),
    _cost("disk_mb"),
    Column("step", lambda trial: trial.of_last("step", 0)),
    Column("total_steps", lambda trial: trial.of_last("total_steps")),
    Column(
        "wall_s",
        lambda trial: trial.of_outcome("wall_s"),
        terminal=Shown(
            "seconds",
            lambda row, board: "" if row.wall_s is None else f"{row.wall_s:.0f}",
            _teacher_seconds,
            dropped=2,
        ),
        page=Shown("time", lambda row, board: "" if row.wall_s is None else duration(row.wall_s)),
        tracked=_of_outcome("wall_s"),
    ),
    Column("gpu_s", lambda trial: trial.of_outcome("gpu_s"), tracked=_of_outcome("gpu_s")),
    Column("cpu_s", lambda trial: trial.of_outcome("cpu_s"), tracked=_of_outcome("cpu_s")),
    Column(
        "peak_memory_gib",
        lambda trial: _peak(trial, "peak_memory_gib"),
        terminal=Shown(
            "GiB",
            lambda row, board: f"{row.peak_memory_gib:.1f}" if row.peak_memory_gib else "",
            dropped=1,
        ),
    ),
    Column("peak_host_gib", lambda trial: _peak(trial, "peak_host_gib")),
    Column("energy_j", lambda trial: energy_j(trial.record)),
    Column("samples_per_s", lambda trial: trial.of_last("samples_per_s")),
    Column("padding", lambda trial: trial.of_last("padding")),
    Column(
        "unlabelled",
        lambda trial: trial.of_last("unlabelled", 0),
        terminal=Shown("unlabelled", _unlabelled_text, when=_any_unlabelled),
        page=Shown("unlabelled texts", _unlabelled_text, when=_any_unlabelled),
    ),
    Column("skipped", lambda trial: trial.of_last("skipped", 0)),
    Column("accumulation", lambda trial: trial.record.accumulation),
    Column("weights", lambda trial: {name: t.weight for name, t in trial.spec.losses.terms()}),
    Column("relations_until", _relations_until),
    Column("lr", lambda trial: trial.spec.train.lr),
    Column("temperature", lambda trial: trial.spec.losses.logits.temperature),
    Column("kept", lambda trial: trial.record.kept),
    Column("error", lambda trial: trial.of_outcome("error")),
    Column(
        "test_score",
        lambda trial: trial.test.get(trial.metric),
        terminal=Shown(
            "test",
            lambda row, board: number(row.test_score if row.test_mean is None else row.test_mean),
            _teacher_test,
        ),
    ),
    Column("test_mean", _test_mean),
)
