"""The text of a task: from the hub, from local files, or generated; checked before use."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError, did_you_mean
from lkd_tune.config.settings.known_tasks import GENERATED, is_file_name
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.acceptability.task import Sentence, build_acceptability
from lkd_tune.data.readers import (
    UNREADABLE,
    load_table,
    read_columns,
    rename_columns,
)
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.types import Split
from lkd_tune.files.cache import cache_dir

SPLITS = ("train", "dev", "test")


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
    columns = task.columns
    table = _table(task, split, cache)
    where = _called(task, split)
    if len(table) == 0:
        raise SpecError(Problem("", f"task.{split}", f"{where} holds no examples"))
    kind = kind_of(task)
    text = kind.read_texts(list(table[columns.text]), where, columns.text)
    pair = [_as_text(value) for value in table[columns.pair]] if columns.pair else None
    unlabelled = Split(text, pair, [])
    raw = list(table[columns.label]) if columns.label else []
    names = label_names(task, cache=cache)
    label = kind.read_labels(raw, unlabelled, names, where, str(columns.label))
    return Split(text, pair, label)


def label_names(task: TaskSettings, *, cache: Path | None = None) -> list[str] | None:
    """Returns the names of the classes, None if the kind has none.

    They are the task's, or the data set's, or those that the training split holds.

    Raises:
        SpecError: If they are needed and the data can't be had, or don't fit the task's metric.
    """
    kind, names = kind_of(task), task.labels or None
    if names is None and kind.num_outputs is not None:
        names = kind.class_names([], "", "")
    elif names is None and task.data == GENERATED:
        names = kind.class_names([0, 1], GENERATED, "label")
    elif names is None and task.columns.label is not None:
        names = _names_in_data(task.model_dump_json(), source_fingerprint(task, "train"), cache)
    if names is not None and (problem := kind.metric_problem(task, names)):
        raise SpecError(problem)
    return names


@lru_cache(maxsize=8)
def _names_in_data(task: str, _content: str, cache: Path | None) -> list[str] | None:
    settings = TaskSettings.model_validate_json(task)
    table = _table(settings, "train", cache)
    feature: Any = table.features[settings.columns.label]
    feature = getattr(feature, "feature", feature)  # a list's
    if getattr(feature, "names", None):
        return list(feature.names)
    column = str(settings.columns.label)
    return kind_of(settings).class_names(list(table[column]), _called(settings, "train"), column)


def count_labels(task: TaskSettings, *, cache: Path | None = None) -> int | None:
    """Returns the width of the task's output, None if that is the vocabulary."""
    kind = kind_of(task)
    if not KINDS[task.kind].has_labels or kind.num_outputs is not None:
        return kind.num_outputs
    names = label_names(task, cache=cache)
    assert names is not None  # a kind without classes says its outputs
    return len(names)


def _table(task: TaskSettings, split: str, cache: Path | None) -> Any:
    """Returns a split's table, which has the columns that the task needs."""
    problems = check_data(task)
    if problems:
        raise SpecError(Problem("", f"task.{key}", message) for key, message in problems)
    try:
        table = load_table(task, split, (cache or cache_dir()) / "datasets")
    except SpecError:
        raise
    except UNREADABLE as error:
        # A row that is not like the others, or none; of which datasets says only this.
        empty = "corresponds to no data" in str(error)
        said = "holds no examples" if empty else f"can't be read: {error}"
        raise SpecError(Problem("", f"task.{split}", f"{getattr(task, split)} {said}")) from None
    if is_file_name(getattr(task, split)):
        ours = rename_columns(task, table.column_names)
        if ours != table.column_names:
            table = table.rename_columns(dict(zip(table.column_names, ours, strict=True)))
            if task.name == "qqp":
                # A few questions of GLUE's own train.tsv are broken over two lines, both without a
                # label; the hub's copy has left them out.
                labels = table[str(task.columns.label)]
                table = table.select(
                    [i for i, label in enumerate(labels) if label not in (None, "")]
                )
    if split == "train" and task.train_examples is not None:
        table = table.select(range(min(len(table), task.train_examples)))
    for name in (task.columns.text, task.columns.pair, task.columns.label):
        if name is not None and name not in table.column_names:
            message = _lacks(str(task.data), name, table.column_names)
            raise SpecError(Problem("", "task.columns", message))
    return table


def source_fingerprint(task: TaskSettings, split: str) -> str:
    """Returns what changes when the data of a split do: settings, and the content of a file.

    Raises:
        SpecError: If there is no such file.
    """
    from lkd_tune.files.digest import file_digest

    facts: dict[str, Any] = task.model_dump(exclude={"name", "metric", "max_length", "augment"})
    where = facts.get(split)
    for name in SPLITS:
        facts.pop(name)
    if task.data == GENERATED:
        # The grammar is code: what it makes is the only sure sign that it changed.
        return json.dumps([facts, split, _generated(task.seed)[split][:200]], default=str)
    if where is not None and is_file_name(where):
        if not Path(where).is_file():
            raise SpecError(Problem("", f"task.{split}", _is_no_file(where)))
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
            problems.append((split, _is_no_file(file)))
            continue
        try:
            columns = read_columns(task, path)
        except UNREADABLE as error:
            problems.append((split, f"{file} can't be read: {error}"))
            continue
        if not columns:
            problems.append((split, f"{file} is empty"))
            continue
        for key, column in wanted.items():
            if column is not None and column not in columns:
                problems.append((f"columns.{key}", _lacks(file, column, columns)))
    return problems


def _called(task: TaskSettings, split: str) -> str:
    """Returns what messages call a split's source."""
    where = str(getattr(task, split))
    return where if is_file_name(where) else f"{task.data} {task.config or ''} {where}"


def _is_no_file(file: str) -> str:
    return f"{file} is no file; paths are taken from {Path.cwd()}"


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _lacks(file: str, column: str, columns: list[str]) -> str:
    near = did_you_mean(column, columns)
    return f"{file} has no column {column!r}{near}; it has {', '.join(columns)}"
