"""What `check` found in a task's data, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lkd_tune.cli.printing.tables import terminal
from lkd_tune.data.survey import SplitFacts
from lkd_tune.results.formatting import percent

_MAX_CLASSES = 6


def show_data(splits: Sequence[SplitFacts]) -> None:
    """Prints a row for each split; nothing if there is none."""
    if not splits:
        return
    table = Table(title="data", title_justify="left", box=None, padding=(0, 2, 0, 0),
                  header_style="dim")  # fmt: skip
    for column in ("split", "file"):
        table.add_column(column, overflow="fold")
    for column in ("rows", "empty", "repeated", "in train", "cut"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("classes", overflow="fold")
    for each in splits:
        table.add_row(
            each.split,
            Path(each.source).name,
            f"{each.rows:,}",
            f"{each.empty:,}",
            f"{each.repeated:,}",
            f"{each.in_train:,}" if each.split != "train" else "",
            percent(each.cut, 1),
            _classes(each),
        )
    terminal().print(table)


def _classes(facts: SplitFacts) -> str:
    """Returns the shares of the largest classes: `bad 52%, good 48%`."""
    largest = sorted(facts.classes.items(), key=lambda item: -item[1])
    shown = [f"{name} {count / facts.rows:.0%}" for name, count in largest[:_MAX_CLASSES]]
    if len(largest) > _MAX_CLASSES:
        name, count = largest[-1]
        shown.append(f"… {len(largest)} classes, the smallest {name} with {count:,} rows")
    return ", ".join(shown)
