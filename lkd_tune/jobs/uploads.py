"""The local files that a space names: told by absolute paths, or taken along to a cluster."""

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
from lkd_tune.config.space import SearchSpace

# Stands in a shipped space for the folder that the files are put into on the cluster.
SHIPPED = "shipped:"
# Ray's job server takes up to 500 MiB, and keeps it in the head's memory.
MOST_BYTES = 400 * 2**20

# What the settings at these paths name: files of data, folders of models, folders of earlier runs.
_FILES = (
    ("task", "train"),
    ("task", "dev"),
    ("task", "test"),
    ("evaluate_on", "task", "train"),
    ("evaluate_on", "task", "dev"),
)
_FOLDERS = (
    ("teacher",),
    ("teacher", "model"),
    ("teacher", "train", "model"),
    ("student", "init"),
    ("task", "augment", "model"),
    ("evaluate_on", "task", "augment", "model"),
    ("search", "warm_start"),
)
# Of `student.init`; a folder of that name would not be meant.
_WORDS = ("teacher", "random", "nearest")


def absolute_paths(spaces: Iterable[SearchSpace]) -> list[dict[str, Any]]:
    """Returns the settings of spaces with absolute paths for the files that are here."""
    trees = [copy.deepcopy(space.source.tree) for space in spaces]
    for block, key in _local(trees):
        block[key] = str(Path(block[key]).absolute())
    return trees


def ship_files(spaces: Iterable[SearchSpace], folder: Path) -> list[dict[str, Any]]:
    """Returns the settings of spaces after copying the files they name into a folder.

    Raises:
        SpecError: If they are larger than a job server takes; nothing is copied then.
    """
    trees = [copy.deepcopy(space.source.tree) for space in spaces]
    found = [*_local(trees)]
    taken = {block[key]: _files(Path(block[key])) for block, key in found}
    sizes = {
        value: sum(file.stat().st_size for file in files) / 2**20 for value, files in taken.items()
    }
    if sum(sizes.values()) > MOST_BYTES / 2**20:
        listed = ", ".join(f"{path} {size:.0f} MiB" for path, size in sizes.items())
        message = (
            f"more than {MOST_BYTES / 2**20:.0f} MiB ({listed}); put the large ones where all "
            "nodes see them and name them by their path there"
        )
        raise SpecError(Problem("--ship", "", message))
    names = {value: f"{i}-{Path(value).name}" for i, value in enumerate(taken)}
    for value, files in taken.items():
        for file in files:
            target = folder / "files" / names[value] / file.relative_to(value)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for block, key in found:
        block[key] = SHIPPED + names[block[key]]
    return trees


def unpack_files(tree: Any, run: Path) -> Any:
    """Returns settings with the paths of shipped files in a run's folder."""
    if isinstance(tree, dict):
        return {key: unpack_files(value, run) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack_files(value, run) for value in tree]
    if isinstance(tree, str) and tree.startswith(SHIPPED):
        return str(run / "shipped" / tree.removeprefix(SHIPPED))
    return tree


def differing(sent: Path, there: Path) -> list[str]:
    """Returns which of the files below a folder are not the same, or not at all, in another."""
    names = [path.relative_to(sent) for path in sorted(sent.rglob("*")) if path.is_file()]
    return [
        str(name)
        for name in names
        if not (there / name).is_file() or not filecmp.cmp(sent / name, there / name, shallow=False)
    ]


def _local(trees: Iterable[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Gives what holds a setting that names a file or folder which is here, and its key there."""
    for tree in trees:
        for path in (*_FILES, *_FOLDERS):
            for block, key in _leaves({"": tree}, "", path):
                value = block[key]
                if not isinstance(value, str) or (path[-1] == "init" and value in _WORDS):
                    continue
                # A hub id may have the name of a folder here; so has Transformers, which prefers
                # the folder. The name of a hub's split is no file's.
                if os.path.isdir(value) if path in _FOLDERS else _is_data(value):
                    yield block, key


def _leaves(block: Any, key: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """Gives the places of the values at a path below a value: of each option, of each in a list."""
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


def _is_data(value: str) -> bool:
    return is_file_name(value) and os.path.isfile(value)


def _files(source: Path) -> list[Path]:
    """Returns the files to be taken along: of an earlier run only what a search reads of it.

    None that are hidden: a .gitignore, say, would have Ray leave out others.
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
