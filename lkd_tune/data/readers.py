"""Tables of a task's data: from the hub or from local files of many kinds."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import FILE_COLUMNS, is_file_name
from lkd_tune.config.settings.task import TaskSettings

# What readers raise for a file that is broken, or not what its suffix says.
UNREADABLE = (OSError, ValueError, EOFError, csv.Error, zlib.error)


def file_columns(task: TaskSettings, path: Path) -> list[str]:
    """Returns the names of a local file's columns, as the task calls them.

    A csv or tsv file has a header if its first row holds the columns the task needs; else its
    columns are those of `task.column_names`.

    Raises:
        UNREADABLE: If the file can't be read as what its suffix says.
    """
    return as_the_task_calls(task, _own_columns(task, path))


def as_the_task_calls(task: TaskSettings, columns: Sequence[str]) -> list[str]:
    """Returns a local file's columns, those renamed that a known task's authors call otherwise."""
    wanted = {task.columns.text, task.columns.pair, task.columns.label} - {*columns}
    known = FILE_COLUMNS.get(task.name, {})
    ours = {theirs: name for name, theirs in known.items() if name in wanted}
    return [ours.get(name, name) for name in columns]


def _own_columns(task: TaskSettings, path: Path) -> list[str]:
    suffix = _suffix(path)
    if suffix == "parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)
    if suffix == "txt":
        return ["text"]
    if suffix == "conll":
        return list(next(_conll_rows(task, path), {}))
    with _open_text(path) as file:
        if suffix in ("json", "jsonl"):
            text = file.readline() if suffix == "jsonl" else file.read()
            first = _first_json(text)
            if _is_nested(first):
                return list(next(_nested_rows(first), {}))
            rows = first if isinstance(first, list) else [first]
            if not rows or not isinstance(rows[0], Mapping):
                raise ValueError("a list of objects, or one object a line, is needed")
            return list(rows[0])
        first = next(csv.reader(file, **_dialect(path)), [])
    return list(first if _has_header(task, first) else task.column_names or first)


def load_table(task: TaskSettings, split: str, cache: Path) -> Any:
    """Returns a split as a `datasets` table.

    Args:
        task: The task.
        split: 'train', 'dev' or 'test'.
        cache: Folder for converted files.

    Raises:
        SpecError: If there is no such split.
        UNREADABLE: If a local file can't be read.
    """
    import datasets

    datasets.disable_progress_bars()
    where = getattr(task, split)
    if where is None:
        raise SpecError(Problem("", f"task.{split}", "is not given, so there is nothing to score"))
    if not is_file_name(where):
        limit = task.train_examples
        try:
            if limit is None or "[" in where:  # a slice of a split can't be streamed
                return datasets.load_dataset(task.data, task.config, split=where)
            # Streamed, the rest is not even downloaded; dev and test as well: to load one split,
            # datasets downloads and converts them all.
            stream = datasets.load_dataset(task.data, task.config, split=where, streaming=True)
            rows = islice(stream, limit if split == "train" else None)
            return datasets.Dataset.from_list(list(rows), stream.features)
        except Exception as error:  # datasets raises many kinds for 'not there' and 'no network'
            line = str(error).strip().splitlines()[0] if str(error).strip() else ""
            what = f"{task.data} {task.config or ''} {where}".strip()
            message = f"{what} can't be loaded from the hub: {type(error).__name__}: {line}"
            raise SpecError(Problem("", "task.data", message)) from error
    path = Path(where)
    suffix = _suffix(path)
    if suffix == "conll":
        return datasets.Dataset.from_list(list(_conll_rows(task, path)))
    options: dict[str, Any] = {"split": "train", "cache_dir": str(cache)}
    data_file = str(path.resolve())
    if suffix in ("txt", "parquet"):
        return _converted("text" if suffix == "txt" else suffix, data_file, **options)
    if suffix == "json":
        with _open_text(path) as file:
            first = _first_json(file.read())
        if _is_nested(first):
            return datasets.Dataset.from_list(list(_nested_rows(first)))
    if suffix in ("json", "jsonl"):
        return _converted("json", data_file, **options)
    dialect = _dialect(path)
    options |= {
        "sep": dialect["delimiter"],
        "quoting": dialect["quoting"],
        "keep_default_na": False,
    }
    with _open_text(path) as file:
        header = next(csv.reader(file, **dialect), [])
    if not _has_header(task, header):
        # Only these are used: some lines of the STS benchmark have more.
        header = task.column_names or []
        options |= {"names": header, "usecols": header, "header": None}
    # As it is written: 007 would become 7, and the next 10,000 rows be of another type.
    options["converters"] = dict.fromkeys(header, str)
    return _converted("csv", data_file, **options)


def _converted(form: str, file: str, **options: Any) -> Any:
    """Returns the table that `datasets` makes of a file.

    Raises:
        ValueError: If the file is not what it should be.
    """
    import datasets

    try:
        return datasets.load_dataset(form, data_files=file, **options)
    except datasets.exceptions.DatasetGenerationError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", cause):
            names, line, fields = found.groups()
            cause = f"line {line} has {fields} fields, where the header has {names}"
        raise ValueError(cause) from error


def _has_header(task: TaskSettings, first: list[str]) -> bool:
    needed: set[str | None] = {task.columns.text, task.columns.label}
    if needed <= set(as_the_task_calls(task, first)):
        return True
    return task.column_names is None or len(first) < len(task.column_names)


def _conll_rows(task: TaskSettings, path: Path) -> Iterator[dict[str, list[str]]]:
    """Yields sentences of a file with a word and its tags a line, and empty lines between.

    Raises:
        ValueError: If a line has another number of fields than the others.
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


def _is_nested(first: Any) -> bool:
    """Returns whether JSON is nested as SQuAD's: articles, paragraphs, questions."""
    return isinstance(first, Mapping) and isinstance(first.get("data"), list)


def _nested_rows(first: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a row for each question of a SQuAD file, in the hub's form.

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


def _suffix(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[-1]


def _open_text(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    # MRPC's files begin with a byte order mark.
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _dialect(path: Path) -> dict[str, Any]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".csv"):
        return {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL}
    # Tab-separated corpora (GLUE, CoLA, STS-B) do not quote: a lone " is part of the sentence.
    return {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


def _first_json(text: str) -> Any:
    return json.JSONDecoder().raw_decode(text.lstrip())[0]
