"""What is wrong with data that can be read: one class only, or dev rows that are in train too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import is_file_name
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.readers import UNREADABLE, read_note
from lkd_tune.data.types import Split

# Above this share of common text, a score on dev shows what a model remembers. Published data sets
# stay below 1%. It is counted in characters, because headings are often alike.
_MAX_SHARED = 0.1


def data_notes(
    task: TaskSettings, splits: Mapping[str, Split], names: Sequence[str] | None
) -> list[str]:
    """Returns what a user should know of a task's data before training on them, a line each.

    Args:
        task: The task.
        splits: Its splits, `train` among them unless the task has none.
        names: Names of the classes, None if the kind has none.

    Raises:
        SpecError: If all rows of the training split have the same label.
    """
    notes = [f"{file} {note}" for file, note in _reading_notes(task)]
    for split, text in splits.items():
        labels = _labels_in(task, text)
        if labels is None or len(labels) > 1:
            continue
        shown = ", ".join(_name(label, names) for label in labels) or "no class"
        message = f"{getattr(task, split)}: all rows have the same label, {shown}"
        if split == "train":
            advice = "nothing can be learnt from them; use data with all classes"
            raise SpecError(Problem("", "task.train", f"{message}; {advice}"))
        notes.append(f"{message}; scores on it tell nothing of the other classes")
    found = _labels_in(task, splits["train"]) if "train" in splits else None
    missing = [name for label, name in enumerate(names or ()) if label not in (found or ())]
    if found is not None and missing:
        notes.append(
            f"{task.train} has no row with the label {', '.join(missing[:5])}"
            f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}, so models will not "
            "learn to predict it"
        )
    train = {*splits["train"].rows()} - {""} if "train" in splits else set()
    for split, text in splits.items():
        rows = text.rows() if split != "train" else []
        shared = [row for row in rows if row in train]
        if sum(map(len, shared)) > _MAX_SHARED * sum(map(len, rows)):
            notes.append(
                f"{len(shared):,} of {len(rows):,} texts of {getattr(task, split)} are also in "
                f"{task.train}: the score on {split} will be too high for new text; remove them "
                "from one of the two"
            )
    return notes


def _reading_notes(task: TaskSettings) -> Iterator[tuple[str, str]]:
    for file in dict.fromkeys((task.train, task.dev, task.test)):
        if file is None or not is_file_name(file):
            continue
        try:
            note = read_note(task, Path(file))
        except UNREADABLE:
            continue
        if note is not None:
            yield file, note


def _labels_in(task: TaskSettings, split: Split) -> set[Any] | None:
    """Returns the different classes or numbers in a split; None if its labels are neither."""
    labels = [each for label in split.label for each in _as_list(label)]
    are_classes = KINDS[task.kind].has_labels and all(isinstance(x, int | float) for x in labels)
    return {*labels} if are_classes else None


def _as_list(label: Any) -> list[Any]:
    return label if isinstance(label, list) else [label]


def _name(label: Any, names: Sequence[str] | None) -> str:
    return names[label] if names else f"{label:g}"
