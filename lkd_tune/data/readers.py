"""Tables of a task's data, from the hub or from local files: one reader for each suffix."""

from __future__ import annotations

import contextlib
import csv
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import is_file_name
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.formats.columns import rename_columns
from lkd_tune.data.formats.conll import conll_columns, conll_note, conll_table
from lkd_tune.data.formats.convert import convert, without_log
from lkd_tune.data.formats.delimited import Delimited
from lkd_tune.data.formats.json_files import json_columns, json_table, jsonl_columns, jsonl_table
from lkd_tune.data.formats.text import as_utf8, decoding_problem
from lkd_tune.storage.hub import is_hub_reachable, reading_hub

UNREADABLE = (OSError, ValueError, EOFError, csv.Error, zlib.error)
"""Exceptions that readers raise for a broken file, or one that is not of its suffix's format."""


def _nothing(task: TaskSettings, path: Path) -> str | None:
    return None


@dataclass(frozen=True)
class Reader:
    """How files with one suffix are read.

    Attributes:
        columns: Returns the column names in the file; [] if the file is empty. Reads as
            little of the file as possible.
        table: Returns the file as a `datasets` table. The folder is for converted files.
        note: Returns what a user should know of how the file is read, or None.
        is_text: Whether the file is text, whose encoding may be another.
    """

    columns: Callable[[TaskSettings, Path], list[str]]
    table: Callable[[TaskSettings, Path, Path], Any]
    note: Callable[[TaskSettings, Path], str | None] = _nothing
    is_text: bool = True


def read_columns(task: TaskSettings, path: Path) -> list[str]:
    """Returns the names of a local file's columns, as the task names them.

    A csv or tsv file has a header if its first row holds the columns that the task needs.
    Otherwise its columns are those of `task.column_names`.

    Raises:
        UNREADABLE: If the file can't be read in the format of its suffix.
    """
    return rename_columns(task, READERS[_suffix(path)].columns(task, path))


def read_note(task: TaskSettings, path: Path) -> str | None:
    """Returns what a user should know of how a local file is read, or None.

    Raises:
        UNREADABLE: If the file can't be read in the format of its suffix.
    """
    return READERS[_suffix(path)].note(task, path)


def explain(task: TaskSettings, path: Path, error: Exception) -> str:
    """Returns why a local file can't be read, after one of `UNREADABLE`."""
    try:
        problem = decoding_problem(task, path) if READERS[_suffix(path)].is_text else None
    except UNREADABLE:
        problem = None
    return f"can't be read: {problem or error}"


def load_table(task: TaskSettings, split: str, cache: Path) -> Any:
    """Returns a split as a `datasets` table.

    Args:
        task: The task.
        split: 'train', 'dev' or 'test'.
        cache: Folder for converted files.

    Raises:
        SpecError: If the task has no such split.
        UNREADABLE: If a local file can't be read.
    """
    import datasets

    datasets.disable_progress_bars()
    where = getattr(task, split)
    if where is None:
        raise SpecError(Problem("", f"task.{split}", "is not given, so there is nothing to score"))
    if not is_file_name(where):
        return _hub_table(task, split, where)
    return READERS[_suffix(Path(where))].table(task, Path(where), cache)


def _hub_table(task: TaskSettings, split: str, where: str) -> Any:
    import datasets

    limit, is_folder = task.train_examples, Path(str(task.data)).exists()
    try:
        with without_log(), contextlib.nullcontext() if is_folder else reading_hub():
            if limit is None or "[" in where:  # a slice of a split can't be streamed
                return datasets.load_dataset(task.data, task.config, split=where)
            # Streaming does not download the rest of the split. Dev and test are streamed as well:
            # to load one split, datasets downloads and converts all of them.
            stream = datasets.load_dataset(task.data, task.config, split=where, streaming=True)
            rows = islice(stream, limit if split == "train" else None)
            return datasets.Dataset.from_list(list(rows), stream.features)
    except Exception as error:  # datasets raises many kinds for 'not there' and 'no network'
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        reason = f"{type(error).__name__}: {line}"
        if not is_folder and not is_hub_reachable():
            reason = (
                "it can't be reached, and its cache lacks them; name local files in task.train and "
                "task.dev, or load the data once where there is a network"
            )
        what = f"{task.data} {task.config or ''} {where}".strip()
        message = f"{what} can't be loaded from the hub: {reason}"
        raise SpecError(Problem("", "task.data", message)) from error


def _text_columns(task: TaskSettings, path: Path) -> list[str]:
    return ["text"]


def _text_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    return convert("text", as_utf8(task, path, cache), cache)


def _parquet_columns(task: TaskSettings, path: Path) -> list[str]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_schema(path).names)


def _parquet_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    return convert("parquet", path, cache)


READERS: Mapping[str, Reader] = {
    ".csv": Reader(Delimited(",").columns, Delimited(",").table),
    ".tsv": Reader(Delimited("\t").columns, Delimited("\t").table),
    ".txt": Reader(_text_columns, _text_table),
    ".json": Reader(json_columns, json_table),
    ".jsonl": Reader(jsonl_columns, jsonl_table),
    ".parquet": Reader(_parquet_columns, _parquet_table, is_text=False),
    ".conll": Reader(conll_columns, conll_table, conll_note),
}
"""Readers by suffix, that of `.gz` left out; the suffixes are those of `FILE_SUFFIXES`."""


def _suffix(path: Path) -> str:
    return "." + path.name.removesuffix(".gz").rsplit(".", 1)[-1]
