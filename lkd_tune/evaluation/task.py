"""The task for `evaluate` and `compare`, from options and student.json; and its predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.source import Source, apply_override
from lkd_tune.config.trial import read_trial_spec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.storage.fetch import local_model


def evaluation_task(
    model: str, task: str | None, data: Path | None, split: str, overrides: Sequence[str]
) -> TaskSettings:
    """Returns the task that a model is scored on.

    Args:
        model: Folder, URI or hub id.
        task: Name of a task. Default: the task in the model's student.json.
        data: File that replaces the split.
        split: 'dev' or 'test'.
        overrides: Settings as `task.KEY=VALUE`.

    Raises:
        SpecError: If there is no task or no such split, or the task's settings are invalid.
    """
    if split not in ("dev", "test"):
        raise SpecError(Problem("--split", "", f"found {split!r}; allowed: dev, test"))
    from pydantic import ValidationError

    student = Path(local_model(model)) / "student.json"
    settings: dict[str, object] = {}
    if task is not None:
        settings = {"name": task}
    elif student.exists():
        settings = read_trial_spec(student, rerun=False).task.model_dump()
    elif data is not None:
        settings = {"name": data.stem}
    else:
        message = "has no student.json, so --task or --data is needed"
        raise SpecError(Problem(model, "", message))
    if data is not None:
        settings |= {"data": None, "config": None, "unlabelled": None}
        settings |= {"train": str(data), "dev": str(data)}
        settings[split] = str(data)
    source = Source("task", {"task": settings})
    for override in overrides:
        apply_override(source, override)
    others = [key for key in source.tree if key != "task"]
    if others:
        message = "does not apply to an evaluation; only settings of task do"
        raise SpecError(source.problem((key,), message) for key in others)
    try:
        return TaskSettings.model_validate(source.tree["task"])
    except ValidationError as error:
        raise SpecError(
            Problem("", ".".join(map(str, ("task", *detail["loc"]))), detail["msg"])
            for detail in error.errors()
        ) from None


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines, completely or not at all.

    Raises:
        SpecError: If the file can't be written.
    """
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        write_atomically(path, "".join(lines))
    except OSError as error:
        raise SpecError(Problem(str(path), "", f"can't be written: {error.strerror}")) from None
