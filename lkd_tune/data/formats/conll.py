"""CoNLL files: a word and its tags per line, and an empty line after each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.formats.text import open_text


def conll_columns(task: TaskSettings, path: Path) -> list[str]:
    """Returns the names of the columns that are read; [] if the file has no sentence."""
    return list(next(_rows(task, path), {}))


def conll_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    """Returns a table with a row for each sentence, whose cells are lists."""
    import datasets

    return datasets.Dataset.from_list(list(_rows(task, path)))


def conll_note(task: TaskSettings, path: Path) -> str | None:
    """Returns which of several columns are read, if `task.column_names` does not say so."""
    first = next(_lines(task, path), None)
    if task.column_names is not None or first is None or len(first[1]) <= 2:
        return None
    words, tags = task.columns.text, task.columns.label
    return (
        f"has {len(first[1])} columns; the first is read as {words}, the last as {tags}; "
        "task.column_names names them otherwise"
    )


def _rows(task: TaskSettings, path: Path) -> Iterator[dict[str, list[str]]]:
    """Yields the sentences of a file.

    Without `task.column_names` the words are in the first column and the tags in the last, as in
    the files of CoNLL-2003, which have parts of speech and chunks between them.

    Raises:
        ValueError: If a line has more or fewer fields than there are columns.
    """
    names = task.column_names
    usual = {task.columns.text: 0}
    if task.columns.label is not None:  # text without labels may have words alone
        usual[task.columns.label] = -1
    places = usual if names is None else {name: at for at, name in enumerate(names)}
    width = None if names is None else len(names)
    rows: list[list[str]] = []

    def sentence() -> dict[str, list[str]]:
        return {name: [row[at] for row in rows] for name, at in places.items()}

    for number, fields in _lines(task, path, sentence_ends=True):
        if fields:
            width = width or max(len(fields), len(places))
            if len(fields) != width:
                expected = (
                    f"not {width} ({', '.join(places)})"
                    if width == len(places)
                    else f"where the first line with a word has {width}"
                )
                raise ValueError(f"line {number} has {len(fields)} fields, {expected}")
            rows.append(fields)
        elif rows:
            yield sentence()
            rows = []
    if rows:
        yield sentence()


def _lines(
    task: TaskSettings, path: Path, *, sentence_ends: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Yields each line that has a word: its number and its fields.

    Args:
        task: The task.
        path: The file.
        sentence_ends: Whether to yield the others as well, without fields. They are empty lines and
            the marks of documents, which may also stand inside a sentence and end it.
    """
    with open_text(task, path) as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not line.startswith("-DOCSTART-"):
                yield number, line.rstrip("\r\n").split("\t" if "\t" in line.strip() else None)
            elif sentence_ends:
                yield number, []
