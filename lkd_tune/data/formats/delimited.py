"""Files of separated values: csv and tsv, with a header or without."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.formats.columns import rename_columns
from lkd_tune.data.formats.convert import convert
from lkd_tune.data.formats.text import as_utf8, open_text

# Documents are longer than the 131,072 characters that a field may have by default.
csv.field_size_limit(2**31 - 1)
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Delimited:
    """The reader of files with one suffix.

    Attributes:
        separator: What usually separates the values. A file in which only another separator finds
            the columns that the task needs has that one: Excel writes semicolons where the comma is
            the decimal mark.
    """

    separator: str

    def columns(self, task: TaskSettings, path: Path) -> list[str]:
        """Returns the names in the header, or those of `task.column_names`."""
        first = self._dialect(task, path)[1]
        return first if _has_header(task, first) else task.column_names or first

    def table(self, task: TaskSettings, path: Path, cache: Path) -> Any:
        """Returns the file as a table, whose values are all text.

        Raises:
            ValueError: If the file can't be read, or a row has more fields than the header.
        """
        separator, header = self._dialect(task, path)
        has_header = _has_header(task, header)
        options: dict[str, Any] = {
            "sep": separator,
            "quoting": quoting_of(separator, self.separator),
            "keep_default_na": False,
        }
        if has_header:
            self._check_second_row(task, path, separator)
            names = self._rows(task, path, separator, 1)[0]
            # Otherwise pandas takes the first column for an index if the rows end with a separator.
            options["index_col"] = False
        else:
            # Only these columns are read: some lines of the STS benchmark have more fields.
            names = task.column_names or []
            options |= {"names": names, "usecols": names, "header": None}
        # All values stay text. Inferred types would turn 007 into 7, and could differ between
        # blocks of 10,000 rows.
        options["converters"] = dict.fromkeys(names, str)
        try:
            table = convert("csv", as_utf8(task, path, cache), cache, **options)
        except ValueError as error:
            if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
                expected, line, fields = found.groups()
                raise ValueError(_too_many(line, fields, expected)) from None
            if found := re.search(r"EOF inside string starting at row (\d+)", str(error)):
                message = (
                    f"line {int(found[1]) + 1} opens a quotation mark that nothing closes; double "
                    "those inside a text, or save the file as tsv, which has none around texts"
                )
                raise ValueError(message) from None
            raise
        trimmed = {name: name.strip() for name in table.column_names}
        # Two columns whose names differ in spaces keep them.
        unique = len({*trimmed.values()}) == len(trimmed)
        return table.rename_columns(trimmed) if has_header and unique else table

    def _dialect(self, task: TaskSettings, path: Path) -> tuple[str, list[str]]:
        """Returns the separator, and the cells of the first row without spaces around them."""
        found = {}
        for separator in dict.fromkeys((self.separator, *SEPARATORS)):
            try:
                first = next(iter(self._rows(task, path, separator, 1)), [])
            except csv.Error:
                if separator == self.separator:
                    raise
                continue
            found[separator] = [cell.strip() for cell in first]
            if _names_needed(task, found[separator]):
                return separator, found[separator]
        least = len(task.column_names or ())
        best = (separator for separator, row in found.items() if least and len(row) >= least)
        separator = next(best, self.separator)
        return separator, found[separator]

    def _rows(self, task: TaskSettings, path: Path, separator: str, number: int) -> list[list[str]]:
        """Returns the first rows that are not empty."""
        quoting = quoting_of(separator, self.separator)
        with open_text(task, path) as file:
            rows = csv.reader(file, delimiter=separator, quoting=quoting)
            return list(islice(filter(None, rows), number))

    def _check_second_row(self, task: TaskSettings, path: Path, separator: str) -> None:
        """Checks that the first row below the header is not longer, which pandas would allow."""
        rows = self._rows(task, path, separator, 2)
        if len(rows) == 2 and any(rows[1][len(rows[0]) :]):
            raise ValueError(_too_many("2", str(len(rows[1])), str(len(rows[0]))))


def quoting_of(separator: str, usual: str) -> Literal[0, 3]:
    """Returns how values are quoted in a file with a separator.

    Tab-separated corpora (GLUE, CoLA, STS-B) do not quote: a lone " is part of the sentence.

    Args:
        separator: The separator.
        usual: That of files with the same suffix.
    """
    return csv.QUOTE_NONE if separator == usual == "\t" else csv.QUOTE_MINIMAL


def _names_needed(task: TaskSettings, first: list[str]) -> bool:
    """Returns whether a first row holds the names of the columns that the task needs."""
    return {task.columns.text, task.columns.label} - {None} <= {*rename_columns(task, first)}


def _has_header(task: TaskSettings, first: list[str]) -> bool:
    if _names_needed(task, first):
        return True
    return task.column_names is None or len(first) < len(task.column_names)


def _too_many(line: str, fields: str, expected: str) -> str:
    return (
        f"line {line} has {fields} fields, where the header has {expected}; put text that holds "
        "the separator in double quotes"
    )
