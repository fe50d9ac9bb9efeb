"""Tables of a task's data, from the hub or from local files: one reader for each suffix."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import FILE_COLUMNS, is_file_name
from lkd_tune.config.settings.task import TaskSettings

UNREADABLE = (OSError, ValueError, EOFError, csv.Error, zlib.error)
"""Exceptions that readers raise for a broken file, or one that is not of its suffix's format."""


@dataclass(frozen=True)
class Reader:
    """How files with one suffix are read.

    Attributes:
        columns: Returns the column names in the file; [] if the file is empty. Reads as
            little of the file as possible.
        table: Returns the file as a `datasets` table. The folder is for converted files.
    """

    columns: Callable[[TaskSettings, Path], list[str]]
    table: Callable[[TaskSettings, Path, Path], Any]


def read_columns(task: TaskSettings, path: Path) -> list[str]:
    """Returns the names of a local file's columns, as the task names them.

    A csv or tsv file has a header if its first row holds the columns that the task needs.
    Otherwise its columns are those of `task.column_names`.

    Raises:
        UNREADABLE: If the file can't be read in the format of its suffix.
    """
    return rename_columns(task, READERS[_suffix(path)].columns(task, path))


def rename_columns(task: TaskSettings, columns: Sequence[str]) -> list[str]:
    """Returns a local file's columns, with the names that the hub gives to those of a known task.

    A known task's files may name columns as its authors do, see `FILE_COLUMNS`.
    """
    wanted = {task.columns.text, task.columns.pair, task.columns.label} - {*columns}
    known = FILE_COLUMNS.get(task.name, {})
    ours = {theirs: name for name, theirs in known.items() if name in wanted}
    return [ours.get(name, name) for name in columns]


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

    limit = task.train_examples
    try:
        if limit is None or "[" in where:  # a slice of a split can't be streamed
            return datasets.load_dataset(task.data, task.config, split=where)
        # Streaming does not download the rest of the split. Dev and test are streamed as well: to
        # load one split, datasets downloads and converts all of them.
        stream = datasets.load_dataset(task.data, task.config, split=where, streaming=True)
        rows = islice(stream, limit if split == "train" else None)
        return datasets.Dataset.from_list(list(rows), stream.features)
    except Exception as error:  # datasets raises many kinds for 'not there' and 'no network'
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        what = f"{task.data} {task.config or ''} {where}".strip()
        message = f"{what} can't be loaded from the hub: {type(error).__name__}: {line}"
        raise SpecError(Problem("", "task.data", message)) from error


# Reading csv and tsv. Tab-separated corpora (GLUE, CoLA, STS-B) do not quote: a lone " is part of
# the sentence.
_COMMAS: Mapping[str, Any] = {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL}
_TABS: Mapping[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


def _delimited_columns(dialect: Mapping[str, Any], task: TaskSettings, path: Path) -> list[str]:
    first = _first_row(dialect, path)
    return list(first if _has_header(task, first) else task.column_names or first)


def _delimited_table(
    dialect: Mapping[str, Any], task: TaskSettings, path: Path, cache: Path
) -> Any:
    options: dict[str, Any] = {
        "sep": dialect["delimiter"],
        "quoting": dialect["quoting"],
        "keep_default_na": False,
    }
    header = _first_row(dialect, path)
    if not _has_header(task, header):
        # Only these columns are read: some lines of the STS benchmark have more fields.
        header = task.column_names or []
        options |= {"names": header, "usecols": header, "header": None}
    # All values stay text. Inferred types would turn 007 into 7, and could differ between blocks of
    # 10,000 rows.
    options["converters"] = dict.fromkeys(header, str)
    return _convert("csv", path, cache, **options)


def _first_row(dialect: Mapping[str, Any], path: Path) -> list[str]:
    with _open_text(path) as file:
        return next(csv.reader(file, **dialect), [])


def _has_header(task: TaskSettings, first: list[str]) -> bool:
    needed: set[str | None] = {task.columns.text, task.columns.label}
    if needed <= set(rename_columns(task, first)):
        return True
    return task.column_names is None or len(first) < len(task.column_names)


def _text_columns(task: TaskSettings, path: Path) -> list[str]:
    return ["text"]


def _text_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    return _convert("text", path, cache)


def _parquet_columns(task: TaskSettings, path: Path) -> list[str]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_schema(path).names)


def _parquet_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    return _convert("parquet", path, cache)


def _conll_columns(task: TaskSettings, path: Path) -> list[str]:
    return list(next(_conll_rows(task, path), {}))


def _conll_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    import datasets

    return datasets.Dataset.from_list(list(_conll_rows(task, path)))


def _conll_rows(task: TaskSettings, path: Path) -> Iterator[dict[str, list[str]]]:
    """Yields the sentences of a file with a word and its tags per line, and empty lines between.

    Raises:
        ValueError: If a line has more or fewer fields than there are columns.
    """
    names = task.column_names or [task.columns.text, str(task.columns.label)]
    rows: list[list[str]] = []
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("\t" if "\t" in line.strip() else None)
            if line.strip() and not line.startswith("-DOCSTART-"):
                if len(fields) != len(names):
                    message = f"line {number} has {len(fields)} fields, not {len(names)}"
                    raise ValueError(f"{message} ({', '.join(names)})")
                rows.append(fields)
            elif rows:
                yield {name: [row[i] for row in rows] for i, name in enumerate(names)}
                rows = []
    if rows:
        yield {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _jsonl_columns(task: TaskSettings, path: Path) -> list[str]:
    with _open_text(path) as file:
        return _json_columns_of(_first_json(file.readline()))


def _jsonl_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    return _convert("json", path, cache)


def _json_columns(task: TaskSettings, path: Path) -> list[str]:
    with _open_text(path) as file:
        return _json_columns_of(_first_json(file.read()))


def _json_table(task: TaskSettings, path: Path, cache: Path) -> Any:
    import datasets

    with _open_text(path) as file:
        first = _first_json(file.read())
    if _is_nested(first):
        return datasets.Dataset.from_list(list(_nested_rows(first)))
    return _convert("json", path, cache)


def _json_columns_of(first: Any) -> list[str]:
    if _is_nested(first):
        return list(next(_nested_rows(first), {}))
    rows = first if isinstance(first, list) else [first]
    if not rows or not isinstance(rows[0], Mapping):
        raise ValueError("it does not hold a list of objects, or one object per line")
    return list(rows[0])


def _is_nested(first: Any) -> bool:
    """Returns whether JSON is nested like SQuAD's: articles, paragraphs, questions."""
    return isinstance(first, Mapping) and isinstance(first.get("data"), list)


def _nested_rows(first: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a row for each question of a SQuAD file, in the layout of the hub's data set.

    Raises:
        ValueError: If it is nested in another way.
    """
    try:
        for article in first["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = question.get("answers", [])
                    yield {
                        "id": question["id"],
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": {
                            "text": [answer["text"] for answer in answers],
                            "answer_start": [answer["answer_start"] for answer in answers],
                        },
                    }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"is not nested as SQuAD's files are, see {error}") from None


def _convert(builder: str, path: Path, cache: Path, **options: Any) -> Any:
    """Returns the table that a builder of `datasets` (csv, json, …) makes of a file.

    Raises:
        ValueError: If the builder can't read the file.
    """
    import datasets

    try:
        file = str(path.resolve())
        return datasets.load_dataset(
            builder, data_files=file, split="train", cache_dir=str(cache), **options
        )
    except datasets.exceptions.DatasetGenerationError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", cause):
            names, line, fields = found.groups()
            cause = f"line {line} has {fields} fields, where the header has {names}"
        raise ValueError(cause) from error


READERS: Mapping[str, Reader] = {
    ".csv": Reader(partial(_delimited_columns, _COMMAS), partial(_delimited_table, _COMMAS)),
    ".tsv": Reader(partial(_delimited_columns, _TABS), partial(_delimited_table, _TABS)),
    ".txt": Reader(_text_columns, _text_table),
    ".json": Reader(_json_columns, _json_table),
    ".jsonl": Reader(_jsonl_columns, _jsonl_table),
    ".parquet": Reader(_parquet_columns, _parquet_table),
    ".conll": Reader(_conll_columns, _conll_table),
}
"""Readers by suffix, that of `.gz` left out; the suffixes are those of `FILE_SUFFIXES`."""


def _suffix(path: Path) -> str:
    return "." + path.name.removesuffix(".gz").rsplit(".", 1)[-1]


def _open_text(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    # MRPC's files begin with a byte order mark.
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _first_json(text: str) -> Any:
    return json.JSONDecoder().raw_decode(text.lstrip())[0]
