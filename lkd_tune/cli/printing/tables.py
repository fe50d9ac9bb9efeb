"""Tables on a terminal: a space, a leaderboard, the best student, metrics."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lkd_tune.cli.printing.summary import student_place, summary_lines
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.results.columns import Shown, terminal_columns
from lkd_tune.results.formatting import number, percent
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.summary import settings_of
from lkd_tune.results.verdict import verdict

_MAX_TRIALS_SHOWN = 20
# Width of a table in a file or a pipe.
_WIDTH_WITHOUT_TERMINAL = 160
# Blocks of the space file whose settings `show_space` lists.
_BLOCKS = ("evaluate_on", "student", "layer_map", "losses", "train", "search", "resources", "keep",
           "objectives", "limits", "confirm")  # fmt: skip


def terminal() -> Console:
    """Returns standard output; if that is not a terminal, a width that breaks no line."""
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, markup=False, width=_WIDTH_WITHOUT_TERMINAL)


def show_space(space: SearchSpace, teacher_layers: int) -> None:
    """Prints the searched parameters, the fixed ones, and the size of the space."""
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
    maps = ", ".join(f"depth {depth}: {count}" for depth, count in counts.items())
    size = space.size(teacher_layers)
    trials = "continuous" if math.isinf(size) else f"{size:,.0f} different trials"
    console.print(f"layer maps    {maps}")
    console.print(f"size          {trials}; {settings.search.trials} trials will be run")
    scored = f"scored by {settings.score_name}"
    if settings.evaluate_on is not None:
        train = settings.evaluate_on.train
        length = f"{train.steps} steps" if train.steps else f"{train.epochs:g} epochs"
        scored += f" after fine-tuning for {length}; stopped early by {settings.task.metric}"
    longest = f"inputs of up to {settings.task.max_length} tokens"
    console.print(f"task          {settings.task.name}, {longest}, {scored}", soft_wrap=True)
    teacher = settings.teacher.model or "trained first"
    run = settings.teacher.inference
    inference = "" if run.is_plain else f", run in {run.precision} with placement {run.placement}"
    console.print(f"teacher       {teacher}, {teacher_layers} layers{inference}")
    for model, known in space.init_models.items():
        own = ", with its own tokenizer" if known.own_tokenizer else ""
        console.print(f"student       or {model}, {known.depth} layers{own}", soft_wrap=True)
    fixed = _fixed_settings(space.tree, _BLOCKS)
    console.print("fixed         " + (", ".join(fixed) or "all other settings at their defaults"))
    console.print("the space is valid", style="green")


def show_leaderboard(board: Leaderboard) -> None:
    """Prints one row for each trial, then the summary."""
    console = terminal()
    trials = [row.name for row in board.rows if row.name.isdigit()]
    hidden = {*trials[_MAX_TRIALS_SHOWN:]}
    if board.baseline is not None:
        hidden.discard(board.baseline.name)
    rows = [row for row in board.rows if row.name not in hidden]
    columns = terminal_columns(board)
    while _width(table := _leaderboard_table(board, rows, columns), console) > console.width:
        droppable = [column for column in columns if column.dropped is not None]
        if not droppable:
            break
        columns.remove(min(droppable, key=lambda column: column.dropped or 0))
    console.print(table)
    if hidden:
        console.print(f"… and {len(hidden)} more in leaderboard.csv")
    for line in summary_lines(board):
        console.print(line, soft_wrap=True)


def _leaderboard_table(board: Leaderboard, rows: list[Row], columns: list[Shown]) -> Table:
    table = Table(title=f"{board.task}: {board.metric} on dev", title_justify="left", box=None,
                  padding=(0, 2, 0, 0), header_style="dim")  # fmt: skip
    for column in columns:
        table.add_column(
            column.header_of(board),
            justify="right" if column.is_number else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
        )
    if board.teacher:
        table.add_row(*(column.teacher(board) for column in columns), style="dim")
    for row in rows:
        table.add_row(*(column.text(row, board) for column in columns), style=_style(row))
    return table


def _width(table: Table, console: Console) -> int:
    """Returns the width of a table that nothing is cut off from."""
    unlimited = console.options.update(max_width=10_000)
    return Measurement.get(console, unlimited, table).maximum


def show_best(board: Leaderboard) -> None:
    """Prints the best student: its folder, its score and its settings."""
    console, row = Console(highlight=False, markup=False), board.best
    if row is None:
        running = board.count("running")
        console.print(
            f"no trial of {board.run} is complete yet ({running} running)", soft_wrap=True
        )
        return
    lines = [
        ("folder", student_place(board, row) if row.kept else "not kept"),
        ("score", f"{board.metric} {number(row.score)}"),
    ]
    if board.teacher_score is not None:
        kept = f" (the student keeps {percent(row.share, 1)})" if row.share is not None else ""
        lines.append(("teacher", number(board.teacher_score) + kept))
    if row.task_score is not None:
        lines.append(("before fine-tuning", f"{board.task_metric} {number(row.task_score)}"))
    if row.parameters:
        lines.append(("parameters", f"{row.parameters:,}"))
    lines += settings_of(row)
    width = max(len(name) for name, _ in lines) + 2
    for name, value in lines:
        console.print(f"{name:<{width}}{value}", soft_wrap=True)
    if said := verdict(board):
        console.print(said, soft_wrap=True)
    console.print(f"load it with AutoModelFor{board.head}.from_pretrained(folder)", soft_wrap=True)


def show_metrics(task: TaskSettings, data: str, metrics: dict[str, float]) -> None:
    """Prints a model's metrics on a split or a file, the task's own first."""
    width = max(map(len, metrics))
    for name in sorted(metrics, key=lambda name: (name != task.metric, name)):
        print(f"{data} {name:<{width}} {metrics[name]:.6f}")


def _fixed_settings(tree: Any, blocks: tuple[str, ...], prefix: str = "") -> list[str]:
    """Returns `key=value` for each setting that the space file sets to one value."""
    texts = []
    for key, value in tree.items():
        if not prefix and key not in blocks:
            continue
        if isinstance(value, dict):
            texts += _fixed_settings(value, blocks, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool | list) and value not in (
            "monotone",
            "free",
        ):
            texts.append(f"{prefix}{key}={value}")
    return texts


def _style(row: Row) -> str:
    if row.rank == 1:
        return "bold green"
    return {"failed": "red", "stopped": "dim"}.get(row.state, "cyan" if not row.rank else "")
