"""Tables and summaries of results on a terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import BASELINE
from lkd_tune.results.columns import terminal_columns
from lkd_tune.results.formatting import interval, layer_maps, number
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.summary import costs_beside, held

_MAX_TRIALS_SHOWN = 20


def show_space(space: SearchSpace, teacher_layers: int) -> None:
    """Prints what is searched, what is fixed, and how large the space is."""
    console, settings = Console(highlight=False, markup=False), space.settings
    table = Table(
        "parameter", "values", title=f"{space.source.name}: searched", title_justify="left"
    )
    for name, dist in space.distributions().items():
        table.add_row(name, str(dist))
    layer_map = settings.layer_map
    if space.distributions().get("layer_map") is None:
        for key in ("word", "layer"):
            if getattr(layer_map, key) in ("monotone", "free"):
                table.add_row(f"layer_map.{key}", f"{getattr(layer_map, key)} maps")
    console.print(table)
    counts = space.layer_map_counts(teacher_layers)
    maps = ", ".join(f"depth {depth}: {number}" for depth, number in counts.items())
    size = space.size(teacher_layers)
    trials = "continuous" if math.isinf(size) else f"{size:,.0f} different trials"
    console.print(f"layer maps    {maps}")
    console.print(f"size          {trials}; {settings.search.trials} trials are made")
    scored = f"scored by {settings.score_name}"
    if settings.evaluate_on is not None:
        train = settings.evaluate_on.train
        length = f"{train.steps} steps" if train.steps else f"{train.epochs:g} epochs"
        scored += f" after fine-tuning for {length}; stopped early by {settings.task.metric}"
    console.print(f"task          {settings.task.name}, {scored}", soft_wrap=True)
    teacher = settings.teacher.model or "trained first"
    run = settings.teacher.inference
    kept = "" if run.is_plain else f", run in {run.precision} with placement {run.placement}"
    console.print(f"teacher       {teacher}, {teacher_layers} layers{kept}")
    sections = ("evaluate_on", "student", "layer_map", "losses", "train", "search", "resources",
                "keep", "objectives", "limits", "confirm")  # fmt: skip
    fixed = _changed(space.tree, sections)
    console.print("fixed         " + (", ".join(fixed) or "all other settings at their defaults"))
    console.print("everything fits together", style="green")


def show_leaderboard(board: Leaderboard) -> None:
    """Prints one row for each trial, then the summary."""
    console = terminal()
    table = Table(title=f"{board.task}: {board.metric} on dev", title_justify="left", box=None,
                  padding=(0, 2, 0, 0), header_style="dim")  # fmt: skip
    columns = terminal_columns(board)
    for column in columns:
        table.add_column(
            column.header_of(board),
            justify="right" if column.is_number else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    if board.teacher:
        table.add_row(*(column.teacher(board) for column in columns), style="dim")
    trials = [row for row in board.rows if row.name.isdigit()]
    hidden = {row.name for row in trials[_MAX_TRIALS_SHOWN:]}
    for row in board.rows:
        if row.name not in hidden:
            table.add_row(*(column.text(row, board) for column in columns), style=_style(row))
    console.print(table)
    if hidden:
        console.print(f"… and {len(hidden)} more in leaderboard.csv")
    for line in summary(board):
        console.print(line, soft_wrap=True)


def summary(board: Leaderboard) -> list[str]:
    """Returns the answer in a few sentences."""
    lines = []
    best, baseline = board.best, board.baseline
    if best is not None:
        said = f"best student: {board.metric} {number(best.score)}"
        if best.share is not None:
            said += f", {best.share:.0%} of the teacher's {number(board.teacher_score)}"
        if best.parameters and board.teacher.get("parameters"):
            size = best.parameters / board.teacher["parameters"]
            of = "its" if best.share is not None else "the teacher's"
            said += f" with {size:.0%} of {of} parameters"
        lines.append(said)
        if board.lead_score is not None:
            lines.append(f"the first sentences of each document have {number(board.lead_score)}")
        if best.task_score is not None:
            theirs = number(board.teacher.get("dev", {}).get(board.task_metric))
            own = f"{board.task_metric} {number(best.task_score)}"
            lines.append(f"before fine-tuning: {own}, the teacher's {theirs}")
        lines += _front_lines(board) + _confirmed_lines(board) + _published_lines(board)
        alone = baseline is None or baseline.mean is None or best.mean is None
        if alone and baseline and baseline.score is not None and best.score is not None:
            lines.append(_compared(best, best.score, baseline, baseline.score))
        lines += _teacher_lines(board)
        if best.kept:
            lines.append(f"it lies in {_student(board, best)}")
    counts = [f"{board.count(state)} {word}" for state, word in (
        ("complete", "complete"), ("stopped", "stopped early"), ("refused", "refused"),
        ("failed", "failed"),
        ("running", "unfinished")) if board.count(state)]  # fmt: skip
    trials = board.costs["trials"]
    cost = f"{trials['wall_s'] / 60:.1f} minutes of trials{held(trials)}"
    hardware = board.manifest.get("hardware") or {}
    machine = next(iter(hardware.get("gpus") or []), hardware.get("cpu"))
    done = ", ".join(counts) or "none yet"
    lines.append(f"trials: {done}; {cost}" + (f" on {machine}" if machine else ""))
    lines += [f"{part}: {spent}" for part, spent in costs_beside(board)]
    targets = board.manifest.get("targets")
    if targets:
        lines.append(
            f"teacher targets: {targets['teacher_examples']:,} examples, "
            f"{targets['bytes'] / 1e6:.1f} MB, built in {targets['build_s']:.0f} s, once for all"
        )
    cut = [row.name for row in board.rows if row.accumulation > 1]
    if cut:
        lines.append(f"out of memory, went on with smaller micro-batches: {', '.join(cut)}")
    skipping = [f"{row.name} {row.skipped}" for row in board.rows if row.skipped]
    if skipping:
        lines.append(f"bad training examples left out, by trial: {', '.join(skipping)}")
    if best is not None and best.padding:
        lines.append(f"padding: {best.padding:.1%} of the tokens in its batches")
    lines += [f"{row.name} failed: {row.error}" for row in board.rows if row.state == "failed"][:5]
    return lines


def _teacher_lines(board: Leaderboard) -> list[str]:
    """Returns what to do about a teacher that a student on the labels alone is better than."""
    theirs, alone = board.teacher_score, board.baseline
    if theirs is None or alone is None or alone.score is None or alone.score <= theirs:
        return []
    return [
        f"a student on the labels alone is better than the teacher ({number(theirs)}): train that "
        "longer or otherwise (teacher.train), or take another"
    ]


def _front_lines(board: Leaderboard) -> list[str]:
    """Returns what the Pareto front is, with several objectives."""
    if len(board.objectives) == 1:
        return []
    front = [row.name for row in board.rows if row.on_front]
    return [
        f"Pareto front in {', '.join(board.objectives)}: {len(front)} students, marked *; "
        "the first is its knee"
    ]


def _confirmed_lines(board: Leaderboard) -> list[str]:
    """Returns what other seeds say of the best trials and of the baseline."""
    rows = {row.name: row for row in board.rows if row.mean is not None}
    best, lines = board.best, []
    if best is None or best.name not in rows:
        return []
    lines.append(f"with {board.seeds} other seeds: {_means(best)}")
    baseline = rows.get(BASELINE)
    if baseline is not None:
        lines.append(f"without distillation the same student has {_means(baseline)}")
    for row in rows.values():
        if row.failed_seeds:
            lines.append(f"of trial {row.name} {row.failed_seeds} of the other seeds failed")
    alike = [row.name for row in rows.values() if row.ties_with_best and row.name != best.name]
    if alike:
        lines.append(f"not to be told from it (p > 0.05): {', '.join(alike)}")
    return lines


def _published_lines(board: Leaderboard) -> list[str]:
    """Returns what the published recipe gave in this search."""
    row = next((row for row in board.rows if row.origin == "published"), None)
    if row is None or row.state != "complete" or row.rank == 1:
        return []
    return [f"the published recipe gave {number(row.score)} (trial {row.name})"]


def _means(row: Row) -> str:
    on_test = f", on test {number(row.test_mean)}" if row.test_mean is not None else ""
    return f"{interval(row.mean, row.high)}{on_test}"


def terminal() -> Console:
    """Returns standard output; where that is no terminal lines are as long as they need be."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=160)


def _compared(best: Row, score: float, baseline: Row, baseline_score: float) -> str:
    """Returns what distillation brought over plain training."""
    # After an interruption the baseline may still be that of an earlier winner.
    ours, other = ((r.depth, r.hidden_size, r.word_map) for r in (best, baseline))
    alike = ours == other
    student = "the same student" if alike else f"a student of depth {baseline.depth}"
    said = f"without distillation {student} has {number(baseline_score)}"
    said += f" ({score - baseline_score:+.3f} by distillation)" if alike else ""
    if alike and best.test_score is not None and baseline.test_score is not None:
        gain = best.test_score - baseline.test_score
        said += f"; on test {number(best.test_score)} against "
        said += f"{number(baseline.test_score)} ({gain:+.3f})"
    return said


def show_best(board: Leaderboard) -> None:
    """Prints the best student, what it is and where it lies."""
    console, row = Console(highlight=False, markup=False), board.best
    if row is None:
        running = board.count("running")
        console.print(
            f"no trial of {board.run} is complete yet ({running} running)", soft_wrap=True
        )
        return
    facts = [
        ("folder", _student(board, row) if row.kept else "not kept"),
        ("score", f"{board.metric} {number(row.score)}"),
        *([("teacher", f"{number(board.teacher_score)}"
           + (f", of which {row.share:.1%} are kept" if row.share is not None else ""))]
          if board.teacher_score is not None else []),
        *([("before", f"{board.task_metric} {number(row.task_score)}")]
          if row.task_score is not None else []),
        ("depth", row.depth),
        *([("width", _width(row))] if row.hidden_size else []),
        ("layer map", layer_maps(row.word_map, row.layer_map)),
        ("parameters", f"{row.parameters:,}" if row.parameters else ""),
        ("weights", ", ".join(f"{name} {weight:.3g}" for name, weight in row.weights.items())),
        ("temperature", f"{row.temperature:.3g}"),
        ("lr", f"{row.lr:.3g}"),
    ]  # fmt: skip
    for name, value in facts:
        console.print(f"{name:<12}{value}", soft_wrap=True)
    console.print(f"load it with AutoModelFor{board.head}.from_pretrained(folder)", soft_wrap=True)


def show_metrics(task: TaskSettings, split: str, metrics: dict[str, float]) -> None:
    """Prints a model's metrics, the task's own first."""
    widest = max(map(len, metrics))
    for name in sorted(metrics, key=lambda name: (name != task.metric, name)):
        print(f"{split} {name:<{widest}} {metrics[name]:.6f}")


def _changed(tree: Any, sections: tuple[str, ...], prefix: str = "") -> list[str]:
    """Returns `key=value` for the leaves that were written and are not searched."""
    texts = []
    for key, value in tree.items():
        if not prefix and key not in sections:
            continue
        if isinstance(value, dict):
            texts += _changed(value, sections, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool | list) and value not in (
            "monotone",
            "free",
        ):
            texts.append(f"{prefix}{key}={value}")
    return texts


def _width(row: Row) -> str:
    return f"{row.hidden_size} hidden, {row.heads} heads, {row.intermediate_size} feed-forward"


def _style(row: Row) -> str:
    if row.rank == 1:
        return "bold green"
    return {"failed": "red", "stopped": "dim"}.get(row.state, "cyan" if not row.rank else "")


def place_of(run: RunFolder) -> str:
    """Returns where a run lies: an address, or a path from here."""
    return _from_here(run.where)


def _student(board: Leaderboard, row: Row) -> str:
    return _from_here(f"{board.run}/students/{row.name}")


def _from_here(place: str) -> str:
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
