"""The local files that a space names: made absolute paths, or uploaded to a cluster."""

from __future__ import annotations

import copy
import filecmp
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.known_tasks import is_file_name
from lkd_tune.config.settings.student import INIT_KEYWORDS
from lkd_tune.config.space import SearchSpace

# Prefix of a path in an uploaded space: the folder of uploaded files on the cluster.
SHIPPED = "shipped:"
# Ray's job server accepts up to 500 MiB, and keeps it in the head's memory.
MAX_UPLOAD_BYTES = 400 * 2**20

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
    for block, key in _local_settings(trees):
        block[key] = str(Path(block[key]).absolute())
    return trees


def ship_files(spaces: Iterable[SearchSpace], folder: Path) -> list[dict[str, Any]]:
    """Returns the settings of spaces whose local files are copied to a folder, for an upload.

    Raises:
        SpecError: If they are larger than a job server accepts; then nothing is copied.
    """
    trees = [copy.deepcopy(space.source.tree) for space in spaces]
    found = [*_local_settings(trees)]
    files_of = {block[key]: _files(Path(block[key])) for block, key in found}
    sizes = {
        value: sum(file.stat().st_size for file in files) / 2**20
        for value, files in files_of.items()
    }
    if sum(sizes.values()) > MAX_UPLOAD_BYTES / 2**20:
        listed = ", ".join(f"{path} {size:.0f} MiB" for path, size in sizes.items())
        message = (
            f"more than {MAX_UPLOAD_BYTES / 2**20:.0f} MiB ({listed}); put the large files where "
            "all nodes see them, and set their path there"
        )
        raise SpecError(Problem("--ship", "", message))
    names = {value: f"{i}-{Path(value).name}" for i, value in enumerate(files_of)}
    for value, files in files_of.items():
        for file in files:
            target = folder / "files" / names[value] / file.relative_to(value)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for block, key in found:
        block[key] = SHIPPED + names[block[key]]
    return trees


def unpack_files(tree: Any, run: Path) -> Any:
    """Returns settings in which uploaded files have their path in a run's folder."""
    if isinstance(tree, dict):
        return {key: unpack_files(value, run) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack_files(value, run) for value in tree]
    if isinstance(tree, str) and tree.startswith(SHIPPED):
        return str(run / "shipped" / tree.removeprefix(SHIPPED))
    return tree


def differing_files(folder: Path, other: Path) -> list[str]:
    """Returns the names of a folder's files that another folder lacks or has with other content."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        str(name)
        for name in names
        if not (other / name).is_file()
        or not filecmp.cmp(folder / name, other / name, shallow=False)
    ]


def _local_settings(trees: Iterable[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
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


def _files(source: Path) -> list[Path]:
    """Returns the files to upload; of an earlier run only those that a search reads.

    Hidden files are left out: a .gitignore, for example, would make Ray leave out others.
    """
    if (source / "manifest.json").is_file():
        found = [source / "manifest.json", *source.glob("trials/*/*")]
    else:
        found = [*source.rglob("*")] if source.is_dir() else [source]
    return [
        file
        for file in sorted(found)
        if file.is_file()
        and not any(part.startswith((".", "__")) for part in file.relative_to(source).parts)
    ]
