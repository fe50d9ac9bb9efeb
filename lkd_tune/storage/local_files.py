"""The local files and folders that a space names: found, and made absolute paths."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.known_tasks import is_file_name
from lkd_tune.config.settings.student import INIT_KEYWORDS
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.space import SearchSpace

# Settings that may name a data file, or the folder of a model or an earlier run.
_FILE_SETTINGS = (
    ("task", "train"),
    ("task", "dev"),
    ("task", "test"),
    ("task", "unlabelled"),
    ("task", "unlabelled", "split"),
    ("evaluate_on", "task", "train"),
    ("evaluate_on", "task", "dev"),
)
_FOLDER_SETTINGS = (
    ("teacher",),
    ("teacher", "model"),
    ("teacher", "train", "model"),
    ("student", "init"),
    ("task", "augment", "model"),
    ("evaluate_on", "task", "augment", "model"),
    ("search", "warm_start"),
)


def absolute_paths(spaces: Iterable[SearchSpace]) -> list[dict[str, Any]]:
    """Returns the settings of spaces with absolute paths for local files."""
    trees = [copy.deepcopy(space.source.tree) for space in spaces]
    for block, key in local_settings(trees):
        block[key] = os.path.abspath(block[key])
    return trees


def with_absolute_paths(space: SearchSpace) -> SearchSpace:
    """Returns a space in which local files and folders have absolute paths.

    A run that has them can be read, resumed and exported from any folder.
    """
    source = copy.copy(space.source)
    (source.tree,) = absolute_paths([space])
    return build_space(source) if source.tree != space.source.tree else space


def with_data_in(task: TaskSettings, folder: Path, *, only_missing: bool = False) -> TaskSettings:
    """Returns a task whose local files are those of the same names in a folder.

    Args:
        task: The task.
        folder: The folder.
        only_missing: Whether files that exist where the task names them are kept.
    """
    moved = {}
    for split in ("train", "dev", "test"):
        file = getattr(task, split)
        if file is None or not is_file_name(file) or (only_missing and os.path.isfile(file)):
            continue
        moved[split] = str(folder / (file if only_missing else Path(file).name))
    return task.model_copy(update=moved)


def local_settings(trees: Iterable[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yields (block, key) of each setting that names a local file or folder."""
    for tree in trees:
        for path in (*_FILE_SETTINGS, *_FOLDER_SETTINGS):
            for block, key in _leaves({"": tree}, "", path):
                value = block[key]
                # A keyword is not a folder, even if a folder has that name.
                if not isinstance(value, str) or (path[-1] == "init" and value in INIT_KEYWORDS):
                    continue
                # If a hub id is also the name of a local folder, that is meant, as in Transformers.
                if os.path.isdir(value) if path in _FOLDER_SETTINGS else _is_data_file(value):
                    yield block, key


def _leaves(block: Any, key: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """Yields (block, key) of the values at a path, in each choice and in each item of a list."""
    value = block[key]
    if isinstance(value, dict) and isinstance(value.get("choice"), list):
        block, key, value = value, "choice", value["choice"]
    if isinstance(value, list):
        for i in range(len(value)):
            yield from _leaves(value, i, path)
    elif not path:
        yield block, key
    elif isinstance(value, dict) and path[0] in value:
        yield from _leaves(value, path[0], path[1:])


def _is_data_file(value: str) -> bool:
    return is_file_name(value) and os.path.isfile(value)
