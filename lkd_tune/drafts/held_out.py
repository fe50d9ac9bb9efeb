"""A dev split for data that have none: some rows of the training file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.readers import load_table
from lkd_tune.files.atomic import write_atomically
from lkd_tune.files.cache import cache_dir
from lkd_tune.files.digest import digest

_SHARE, _LEAST_ROWS, _MOST_ROWS, _LARGEST_SHARE = 0.1, 500, 5000, 0.25
_BUCKETS = 10_000


def hold_out(task: TaskSettings, folder: Path, stem: str) -> tuple[Path, Path]:
    """Writes the rows of a training file to two files, train and dev; returns the two.

    A digest of the text decides, so that a repeated text is in one of them only, and a second call
    makes the same files. Dev has a tenth of the rows, but at least 500 if they are a quarter at
    most, and at most 5,000.

    Args:
        task: The task, whose training split is a file.
        folder: Where the files are written.
        stem: The beginning of their names.

    Raises:
        SpecError: If there are too few rows, or one of the files exists.
    """
    paths = folder / f"{stem}-train.jsonl", folder / f"{stem}-dev.jsonl"
    for path in paths:
        if path.exists():
            message = "exists; name a dev file with --dev, or remove it"
            raise SpecError(Problem(str(path), "", message))
    table = load_table(task, "train", cache_dir() / "datasets")
    wanted = max(_SHARE * len(table), min(_LEAST_ROWS, _LARGEST_SHARE * len(table)))
    share = min(wanted, _MOST_ROWS) / max(1, len(table))
    parts: tuple[list[str], list[str]] = ([], [])
    for row in table:
        line = json.dumps(row, ensure_ascii=False, default=str)
        parts[_bucket(row, task) < share * _BUCKETS].append(line + "\n")
    if not all(parts):
        message = f"has {len(table)} rows, too few to hold out a dev split; name one with --dev"
        raise SpecError(Problem(str(task.train), "", message))
    for path, lines in zip(paths, parts, strict=True):
        write_atomically(path, "".join(lines))
    return paths


def _bucket(row: Mapping[str, Any], task: TaskSettings) -> int:
    return int(digest(str(row[task.columns.text]))[:8], 16) % _BUCKETS
