"""The local files that a space names: told by absolute paths, or taken along to a cluster."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.space import SearchSpace

# Stands in a shipped space for the folder that the files are put into on the cluster.
SHIPPED = "shipped:"
# Ray's job server takes up to 500 MiB, and keeps it in the head's memory.
MOST_BYTES = 400 * 2**20

_PLACES = (
    ("task", "train"),
    ("task", "dev"),
    ("task", "test"),
    ("evaluate_on", "task", "train"),
    ("evaluate_on", "task", "dev"),
    ("teacher",),
    ("teacher", "model"),
    ("teacher", "train", "model"),
    ("student", "init"),
)


def absolute_paths(space: SearchSpace) -> dict[str, Any]:
    """Returns the space's settings with absolute paths for the files that are here."""
    tree = copy.deepcopy(space.source.tree)
    for block, key, value in _local(tree):
        block[key] = str(Path(value).absolute())
    return tree


def ship_files(space: SearchSpace, folder: Path) -> dict[str, Any]:
    """Returns the space's settings after copying the files they name into a folder.

    Raises:
        SpecError: If they are larger than a job server takes; nothing is copied then.
    """
    tree = copy.deepcopy(space.source.tree)
    found = [*_local(tree)]
    sizes = {value: _size(Path(value)) for _, _, value in found}
    if sum(sizes.values()) > MOST_BYTES:
        listed = ", ".join(f"{path} {size / 2**20:.0f} MiB" for path, size in sizes.items())
        message = (
            f"more than {MOST_BYTES / 2**20:.0f} MiB ({listed}); put the large ones where all "
            "nodes see them and name them by their path there"
        )
        raise SpecError(Problem("--ship", "", message))
    taken: dict[str, str] = {}
    for block, key, value in found:
        if value not in taken:
            source = Path(value)
            taken[value] = f"{len(taken)}-{source.name}"
            target = folder / "files" / taken[value]
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        block[key] = SHIPPED + taken[value]
    return tree


def unpack_files(tree: Any, run: Path) -> Any:
    """Returns settings with the paths of shipped files in a run's folder."""
    if isinstance(tree, dict):
        return {key: unpack_files(value, run) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack_files(value, run) for value in tree]
    if isinstance(tree, str) and tree.startswith(SHIPPED):
        return str(run / "shipped" / tree.removeprefix(SHIPPED))
    return tree


def _local(tree: dict[str, Any]) -> Iterator[tuple[Any, Any, str]]:
    """Gives the settings that name a file or folder which is here: what holds it, key, value."""
    for path in _PLACES:
        block: Any = tree
        for part in path[:-1]:
            block = block.get(part) if isinstance(block, dict) else None
        if not isinstance(block, dict) or path[-1] not in block:
            continue
        value = block[path[-1]]
        if isinstance(value, dict) and isinstance(value.get("choice"), list):
            options = value["choice"]
            yield from ((options, i, each) for i, each in enumerate(options) if _is_local(each))
        elif _is_local(value):
            yield block, path[-1], value


def _is_local(value: Any) -> bool:
    # A hub id may have the name of a folder here; so has Transformers, which prefers the folder.
    return isinstance(value, str) and os.path.exists(value)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
