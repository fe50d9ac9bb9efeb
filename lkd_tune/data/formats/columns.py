"""Names of a file's columns as the task names them."""

from __future__ import annotations

from collections.abc import Sequence

from lkd_tune.config.settings.known_tasks import FILE_COLUMNS
from lkd_tune.config.settings.task import TaskSettings


def rename_columns(task: TaskSettings, columns: Sequence[str]) -> list[str]:
    """Returns a local file's columns, with the names that the hub gives to those of a known task.

    A known task's files may name columns as its authors do, see `FILE_COLUMNS`.
    """
    wanted = {task.columns.text, task.columns.pair, task.columns.label} - {*columns}
    known = FILE_COLUMNS.get(task.name, {})
    ours = {theirs: name for name, theirs in known.items() if name in wanted}
    return [ours.get(name, name) for name in columns]
