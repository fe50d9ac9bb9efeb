"""The text of a task: from the hub, from local files, or generated; checked before use."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lkd_tune.distill.tasks.acceptability import Sentence, build_acceptability
from lkd_tune.spec.errors import Problem, SpecError, did_you_mean
from lkd_tune.spec.run import cache_dir
from lkd_tune.spec.settings import TaskSettings
from lkd_tune.spec.tasks import is_file_name

GENERATED = "generated"
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Split:
    """Text and labels of one split, in the order of the source.

    Attributes:
        text: First sentences.
        pair: Second sentences, or None for single-sentence tasks.
        label: Class ids, or numbers in regression.
    """

    text: list[str]
    pair: list[str] | None
    label: list[int] | list[float]


def load_split(task: TaskSettings, split: str, *, cache: Path | None = None) -> Split:
    """Returns one split of a task's data.

    Args:
        task: The task.
        split: 'train', 'dev' or 'test'.
        cache: Folder for downloads and converted files; none: the user's cache.

    Raises:
        SpecError: If the data can't be had, or lack a column or a usable label.
    """
    if task.data == GENERATED:
        sentences = _generated(task.seed)[split]
        return Split([s.text for s in sentences], None, [s.label for s in sentences])
    problems = check_data(task)
    if problems:
        raise SpecError(Problem("", f"task.{key}", message) for key, message in problems)
    table = _load_table(task, split, (cache or cache_dir()) / "datasets")
    names = task.columns
    wanted = [name for name in (names.text, names.pair, names.label) if name is not None]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise SpecError(
            Problem("", "task.columns", _lacks(str(task.data), missing[0], table.column_names))
        )
    pair = [_as_text(value) for value in table[names.pair]] if names.pair else None
    label = _labels(task, split, list(table[names.label]))
    return Split([_as_text(value) for value in table[names.text]], pair, label)


def count_labels(task: TaskSettings, train: Split | None = None) -> int:
    """Returns the width of the task's output: 1 for regression, else the number of classes."""
    if task.regression:
        return 1
    if task.labels:
        return len(task.labels)
    split = train or load_split(task, "train")
    return int(max(split.label)) + 1


def source_fingerprint(task: TaskSettings, split: str) -> str:
    """Returns what changes when the data of a split do: settings, and the content of a file."""
    from lkd_tune.distill.fingerprint import file_digest

    facts: dict[str, Any] = task.model_dump(exclude={"name", "metric", "max_length", "augment"})
    where = facts.get(split)
    for name in SPLITS:
        facts.pop(name)
    if task.data == GENERATED:
        # The grammar is code: what it makes is the only sure sign that it changed.
        return json.dumps([facts, split, _generated(task.seed)[split][:200]], default=str)
    if where is not None and is_file_name(where):
        where = file_digest(Path(where))
    return json.dumps([facts, split, where], sort_keys=True)


@lru_cache(maxsize=1)
def _generated(seed: int) -> dict[str, list[Sentence]]:
    """Returns all splits of the generated task: made together, and asked for one by one."""
    return build_acceptability(seed)


def check_data(task: TaskSettings) -> list[tuple[str, str]]:
    """Returns (key below task, message) for each local file that is missing or unfit."""
    if task.data == GENERATED:
        return []
    problems: list[tuple[str, str]] = []
    names = task.columns
    wanted = {"text": names.text, "pair": names.pair, "label": names.label}
    for split in SPLITS:
        file = getattr(task, split)
        if file is None or not is_file_name(file):
            continue
        path = Path(file)
        if not path.is_file():
            problems.append((split, f"{file} is no file; paths are taken from {Path.cwd()}"))
            continue
        try:
            columns = file_columns(task, path)
        except (OSError, ValueError, EOFError) as error:
            problems.append((split, f"{file} can't be read: {error}"))
            continue
        for key, column in wanted.items():
            if column is not None and column not in columns:
                problems.append((f"columns.{key}", _lacks(file, column, columns)))
    return problems


def file_columns(task: TaskSettings, path: Path) -> list[str]:
    """Returns the names of a local file's columns.

    A csv or tsv file has a header if its first row holds the columns the task needs; else its
    columns are those of `task.column_names`.

    Raises:
        OSError, ValueError, EOFError: If the file can't be read as what its suffix says.
    """
    suffix = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if suffix == "parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)
    with _open_text(path) as file:
        if suffix in ("json", "jsonl"):
            text = file.readline() if suffix == "jsonl" else file.read()
            rows = json.loads(text) if not text.lstrip().startswith("{") else [_first_json(text)]
            if not isinstance(rows, list) or not rows or not isinstance(rows[0], Mapping):
                raise ValueError("a list of objects, or one object a line, is needed")
            return list(rows[0])
        first = next(csv.reader(file, **_dialect(path)), [])
    return list(first if _has_header(task, first) else task.column_names or first)


def _has_header(task: TaskSettings, first: list[str]) -> bool:
    needed = {task.columns.text, task.columns.label}
    if needed <= set(first):
        return True
    return task.column_names is None or len(task.column_names) != len(first)


def _load_table(task: TaskSettings, split: str, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    where = getattr(task, split)
    if where is None:
        raise SpecError(Problem("", f"task.{split}", "is not given, so there is nothing to score"))
    if not is_file_name(where):
        try:
            return datasets.load_dataset(task.data, task.config, split=where)
        except Exception as error:  # datasets raises many kinds for 'not there' and 'no network'
            line = str(error).strip().splitlines()[0] if str(error).strip() else ""
            what = f"{task.data} {task.config or ''} {where}".strip()
            message = f"{what} can't be loaded from the hub: {type(error).__name__}: {line}"
            raise SpecError(Problem("", "task.data", message)) from error
    path = Path(where)
    suffix = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    options: dict[str, Any] = {"data_files": str(path.resolve()), "split": "train"}
    if suffix == "parquet":
        return datasets.load_dataset("parquet", cache_dir=str(cache), **options)
    if suffix in ("json", "jsonl"):
        return datasets.load_dataset("json", cache_dir=str(cache), **options)
    dialect = _dialect(path)
    options |= {
        "sep": dialect["delimiter"],
        "quoting": dialect["quoting"],
        "keep_default_na": False,
    }
    with _open_text(path) as file:
        first = next(csv.reader(file, **dialect), [])
    if not _has_header(task, first):
        options |= {"names": task.column_names, "header": None}
    return datasets.load_dataset("csv", cache_dir=str(cache), **options)


def _labels(task: TaskSettings, split: str, raw: list[Any]) -> list[int] | list[float]:
    where = getattr(task, split)
    try:
        if task.regression:
            return [float(value) for value in raw]
        if raw and isinstance(raw[0], str) and not all(_is_integer(value) for value in raw):
            names = task.labels or sorted(set(raw))
            return [names.index(value) for value in raw]
        ids = [int(value) for value in raw]
    except (TypeError, ValueError) as error:
        known = f"; task.labels: {', '.join(task.labels)}" if task.labels else ""
        message = f"{where} has a label that can't be used: {error}{known}"
        raise SpecError(Problem("", "task.columns.label", message)) from None
    classes = len(task.labels) if task.labels else None
    wrong = [value for value in ids if value < 0 or (classes is not None and value >= classes)]
    if wrong:
        limit = f"0–{classes - 1}" if classes else "0 and up"
        hint = "; the labels of this split are hidden" if wrong[0] == -1 else ""
        message = f"{where} has the label {wrong[0]}, allowed is {limit}{hint}"
        raise SpecError(Problem("", "task.columns.label", message))
    return ids


def _is_integer(value: str) -> bool:
    return value.strip().lstrip("+-").isdigit()


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _lacks(file: str, column: str, columns: list[str]) -> str:
    near = did_you_mean(column, columns)
    return f"{file} has no column {column!r}{near}; it has {', '.join(columns)}"


def _open_text(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8", newline="")


def _dialect(path: Path) -> dict[str, Any]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".csv"):
        return {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL}
    # Tab-separated corpora (GLUE, CoLA, STS-B) do not quote: a lone " is part of the sentence.
    return {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


def _first_json(text: str) -> Any:
    return json.JSONDecoder().raw_decode(text.lstrip())[0]
