"""The first rows of a data file of which nothing is known but its name."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import file_types, is_file_name
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.formats.delimited import SEPARATORS, quoting_of
from lkd_tune.data.formats.text import open_text
from lkd_tune.data.readers import UNREADABLE, explain, load_table
from lkd_tune.files.cache import cache_dir

_ROWS = 2000


@dataclass(frozen=True)
class Sample:
    """Rows of a file.

    Attributes:
        file: The file.
        columns: The names of its columns; `column1`, `column2`, … if it has no header.
        rows: The first rows, as many values as columns each.
        total: The number of rows in the file.
        has_header: Whether a csv or tsv file names its columns.
    """

    file: Path
    columns: list[str]
    rows: list[list[Any]]
    total: int
    has_header: bool = True

    def values(self, column: str) -> list[Any]:
        """Returns the values of a column."""
        place = self.columns.index(column)
        return [row[place] for row in self.rows]


def read_sample(file: Path) -> Sample:
    """Returns the first rows of a file.

    Raises:
        SpecError: If there is no such file, its format is unknown, it can't be read, or it has no
            rows.
    """
    if not file.is_file():
        raise SpecError(
            Problem(str(file), "", f"is not a file; paths are relative to {Path.cwd()}")
        )
    if not is_file_name(file.name):
        raise SpecError(Problem(str(file), "", f"is not a {file_types()} file"))
    task = plain_task(file)
    try:
        is_delimited = file.name.removesuffix(".gz").endswith((".csv", ".tsv"))
        sample = _delimited(task, file) if is_delimited else _table(task, file)
    except UNREADABLE as error:
        raise SpecError(Problem(str(file), "", explain(task, file, error))) from None
    if not sample.rows:
        raise SpecError(Problem(str(file), "", "holds no examples"))
    return sample


def plain_task(file: Path) -> TaskSettings:
    """Returns a task by which a file is read before its columns are known."""
    kind = "tagging" if file.name.removesuffix(".gz").endswith(".conll") else "classification"
    settings = {"name": "draft", "kind": kind, "train": str(file), "dev": str(file)}
    return TaskSettings.model_validate(settings)


def _table(task: TaskSettings, file: Path) -> Sample:
    table = load_table(task, "train", cache_dir() / "datasets")
    columns = list(table.column_names)
    rows = table.select(range(min(_ROWS, len(table))))
    return Sample(file, columns, [[row[name] for name in columns] for row in rows], len(table))


def _delimited(task: TaskSettings, file: Path) -> Sample:
    """Returns the rows as the separator gives them that gives most of them the same length."""
    usual = "\t" if file.name.removesuffix(".gz").endswith(".tsv") else ","
    best: tuple[tuple[float, bool], list[list[str]], int] = ((0, False), [], 0)
    for separator in SEPARATORS:
        quoting = quoting_of(separator, usual)
        with open_text(task, file) as text:
            rows = csv.reader(text, delimiter=separator, quoting=quoting)
            try:
                found = [*islice(filter(None, rows), _ROWS + 1)]
                total = len(found) + sum(1 for row in rows if row)
            except csv.Error:
                if separator == usual:
                    raise
                continue
        if not found:
            continue
        width, number = Counter(map(len, found)).most_common(1)[0]
        # A separator that is in no line gives all rows the same length, 1.
        regular = number / len(found) if width > 1 else 0.0
        best = max(best, ((regular, separator == usual), found, total), key=lambda each: each[0])
    _, lines, total = best
    if not lines:
        return Sample(file, [], [], 0)
    first = [cell.strip() for cell in lines[0]]
    has_header = _is_header(first, lines[1:])
    names = first if has_header else [f"column{number + 1}" for number in range(len(first))]
    values = [_fitting(line, len(first)) for line in lines[has_header:]]
    return Sample(file, names, values[:_ROWS], total - has_header, has_header)


def _is_header(first: list[str], rows: list[list[str]]) -> bool:
    """Returns whether a first row names the columns.

    Names are short, differ, are no numbers, and are not among the values below them.
    """
    if len({*first}) < len(first) or any(not name or number_in(name) is not None for name in first):
        return False
    if max(map(len, first)) > 40:
        return False
    return not any(
        name in {row[place].strip() for row in rows if place < len(row)}
        for place, name in enumerate(first)
    )


def _fitting(row: list[str], width: int) -> list[str]:
    return [*row, *[""] * (width - len(row))][:width]


def number_in(text: str) -> float | None:
    """Returns the number that a text is, None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None
