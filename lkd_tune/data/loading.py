"""Splits of a task as text: from the hub, from local files, or generated; checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError, did_you_mean
from lkd_tune.config.settings.known_tasks import GENERATED, is_file_name
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.acceptability.task import Sentence, build_acceptability
from lkd_tune.data.formats.columns import rename_columns
from lkd_tune.data.readers import UNREADABLE, explain, load_table, read_columns
from lkd_tune.data.tasks.base import are_numbered
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.types import Split
from lkd_tune.files.cache import cache_dir
from lkd_tune.files.digest import file_digest

SPLITS = ("train", "dev", "test")


def load_split(task: TaskSettings, split: str, *, cache: Path | None = None) -> Split:
    """Returns one split of a task's data.

    Args:
        task: The task.
        split: 'train', 'dev' or 'test'.
        cache: Folder for downloads and converted files. Default: the user's cache.

    Raises:
        SpecError: If the data can't be loaded, or lack a column or a usable label.
    """
    if task.data == GENERATED:
        sentences = _generated(task.seed)[split]
        return Split([s.text for s in sentences], None, [s.label for s in sentences])
    table = _table(task, split, cache)
    text, where, column = _texts(task, split, table), _source_name(task, split), task.columns.label
    kind, names = kind_of(task), label_names(task, cache=cache)
    raw = list(table[column]) if column else []
    label = kind.read_labels(raw, text, names, where, str(column))
    if split != task.named_in and names is not None and raw and _are_from_rows(task, cache):
        _check_named(kind.class_names(raw, where, str(column)), names, task, split, where)
    return replace(text, label=label)


def load_texts(task: TaskSettings, split: str, *, cache: Path | None = None) -> Split:
    """Returns one split of a task's data without its labels.

    Arguments and errors are those of `load_split`.
    """
    if task.data == GENERATED:
        return load_split(task, split, cache=cache)
    return _texts(task, split, _table(task, split, cache))


def _texts(task: TaskSettings, split: str, table: Any) -> Split:
    columns, where = task.columns, _source_name(task, split)
    if len(table) == 0:
        raise SpecError(Problem("", f"task.{split}", f"{where} holds no examples"))
    text = kind_of(task).read_texts(list(table[columns.text]), where, columns.text)
    pair = [_as_text(value) for value in table[columns.pair]] if columns.pair else None
    return Split(text, pair, [])


def _are_from_rows(task: TaskSettings, cache: Path | None) -> bool:
    """Returns whether the classes have the names that are in the rows of their split."""
    if task.labels or task.data == GENERATED or kind_of(task).num_outputs is not None:
        return False
    fingerprint = source_fingerprint(task, task.named_in)
    return not _names_in_data(task.model_dump_json(), fingerprint, cache)[1]


def _check_named(
    found: Sequence[str] | None, names: list[str], task: TaskSettings, split: str, where: str
) -> None:
    """Checks that a split names its labels if the split with the names does.

    Otherwise a number would be the place of a name in the alphabet, which the data do not tell.

    Raises:
        SpecError: If it has numbers.
    """
    if found is None or are_numbered(names) or not ({*found} - {*names}):
        return
    message = (
        f"{where}, column {task.columns.label}: has labels by number, those of "
        f"{_source_name(task, task.named_in)} are "
        f"names ({', '.join(names[:5])}); write the names, or list them in task.labels in the "
        "order of the numbers"
    )
    raise SpecError(Problem("", f"task.{split}", message))


def label_names(task: TaskSettings, *, cache: Path | None = None) -> list[str] | None:
    """Returns the names of the classes, None if the kind has none.

    They are taken from `task.labels`, else from the data set, else from the training split, or from
    dev if no training text has a label.

    Raises:
        SpecError: If the data that hold them can't be loaded, or they do not fit the task's metric.
    """
    kind, names = kind_of(task), task.labels or None
    if names is None and kind.num_outputs is not None:
        names = kind.class_names([], "", "")
    elif names is None and task.data == GENERATED:
        names = kind.class_names([0, 1], GENERATED, "label")
    elif names is None and task.columns.label is not None:
        fingerprint = source_fingerprint(task, task.named_in)
        names, _ = _names_in_data(task.model_dump_json(), fingerprint, cache)
    if names is not None and (problem := kind.metric_problem(task, names)):
        raise SpecError(problem)
    return names


@lru_cache(maxsize=8)
def _names_in_data(task: str, _content: str, cache: Path | None) -> tuple[list[str] | None, bool]:
    """Returns the names of the classes, and whether the data set declares them with their ids."""
    settings = TaskSettings.model_validate_json(task)
    split = settings.named_in
    table = _table(settings, split, cache)
    feature: Any = table.features[settings.columns.label]
    feature = getattr(feature, "feature", feature)  # a list's
    if getattr(feature, "names", None):
        return list(feature.names), True
    column = str(settings.columns.label)
    where = _source_name(settings, split)
    return kind_of(settings).class_names(list(table[column]), where, column), False


def count_labels(task: TaskSettings, *, cache: Path | None = None) -> int | None:
    """Returns the number of outputs of the task's head, None if that is the vocabulary's size."""
    kind = kind_of(task)
    if not KINDS[task.kind].has_labels or kind.num_outputs is not None:
        return kind.num_outputs
    names = label_names(task, cache=cache)
    assert names is not None  # a kind without classes has `num_outputs`
    return len(names)


def _table(task: TaskSettings, split: str, cache: Path | None) -> Any:
    """Returns a split's table after checking that it has the columns that the task needs."""
    problems = check_data(task)
    if problems:
        raise SpecError(Problem("", f"task.{key}", message) for key, message in problems)
    try:
        table = load_table(task, split, (cache or cache_dir()) / "datasets")
    except SpecError:
        raise
    except UNREADABLE as error:
        # The only sign of an empty file is this part of datasets' message.
        empty = "corresponds to no data" in str(error)
        file = getattr(task, split)
        message = "holds no examples" if empty else explain(task, Path(file), error)
        raise SpecError(Problem("", f"task.{split}", f"{file} {message}")) from None
    if is_file_name(getattr(task, split)):
        ours = rename_columns(task, table.column_names)
        if ours != table.column_names:
            table = table.rename_columns(dict(zip(table.column_names, ours, strict=True)))
            if task.name == "qqp" and task.columns.label is not None:
                # A line break splits a few questions of GLUE's own train.tsv into two rows, both
                # without a label. The hub's copy leaves them out, too.
                labels = table[str(task.columns.label)]
                table = table.select(
                    [i for i, label in enumerate(labels) if label not in (None, "")]
                )
    if split == "train" and task.train_examples is not None:
        table = table.select(range(min(len(table), task.train_examples)))
    for name in (task.columns.text, task.columns.pair, task.columns.label):
        if name is not None and name not in table.column_names:
            message = _missing_column(str(task.data), name, table.column_names)
            raise SpecError(Problem("", "task.columns", message))
    return table


def source_fingerprint(task: TaskSettings, split: str) -> str:
    """Returns a text that identifies a split's data: its settings and the content of its file.

    Raises:
        SpecError: If the file does not exist.
    """
    settings: dict[str, Any] = task.model_dump(
        exclude={"name", "metric", "max_length", "augment", "unlabelled"}
    )
    where = settings.get(split)
    for name in SPLITS:
        settings.pop(name)
    if task.data == GENERATED:
        # The grammar is code: only its output shows reliably whether it changed.
        return json.dumps([settings, split, _generated(task.seed)[split][:200]], default=str)
    if where is not None and is_file_name(where):
        if not Path(where).is_file():
            raise SpecError(Problem("", f"task.{split}", _not_a_file(where)))
        where = file_digest(Path(where))
    return json.dumps([settings, split, where], sort_keys=True)


@lru_cache(maxsize=1)
def _generated(seed: int) -> dict[str, list[Sentence]]:
    """Returns all splits of the generated task; they are made together and read one by one."""
    return build_acceptability(seed)


def check_data(task: TaskSettings) -> list[tuple[str, str]]:
    """Returns pairs (key below task, message) for each local file that is missing or unusable."""
    problems: list[tuple[str, str]] = []
    if task.unlabelled is not None:
        problems += [("unlabelled", said) for _, said in check_data(task.of_unlabelled())]
    if task.data == GENERATED:
        return problems
    names = task.columns
    wanted = {"text": names.text, "pair": names.pair, "label": names.label}
    for split in SPLITS:
        file = getattr(task, split)
        if file is None or not is_file_name(file):
            continue
        path = Path(file)
        if not path.is_file():
            problems.append((split, _not_a_file(file)))
            continue
        try:
            columns = read_columns(task, path)
        except UNREADABLE as error:
            problems.append((split, f"{file} {explain(task, path, error)}"))
            continue
        if not columns:
            problems.append((split, f"{file} is empty"))
            continue
        for key, column in wanted.items():
            if column is None:
                continue
            if column not in columns:
                problems.append((f"columns.{key}", _missing_column(file, column, columns)))
            elif (number := columns.count(column)) > 1:
                message = f"{file} has {number} columns named {column}; rename all but one"
                problems.append((f"columns.{key}", message))
    return problems


def _source_name(task: TaskSettings, split: str) -> str:
    """Returns the name of a split's source, for messages."""
    where = str(getattr(task, split))
    return where if is_file_name(where) else f"{task.data} {task.config or ''} {where}"


def _not_a_file(file: str) -> str:
    place = "" if Path(file).is_absolute() else f"; paths are relative to {Path.cwd()}"
    return f"{file} is not a file{place}"


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _missing_column(file: str, column: str, columns: list[str]) -> str:
    near = did_you_mean(column, columns)
    shown = (name if name == name.strip() != "" else repr(name) for name in columns)
    return f"{file} has no column {column!r}{near}; it has {', '.join(shown)}"
