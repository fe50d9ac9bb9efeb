"""The local files that a space names, uploaded to a cluster."""

from __future__ import annotations

import copy
import filecmp
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.space import SearchSpace
from lkd_tune.storage.local_files import local_settings

# Prefix of a path in an uploaded space: the folder of uploaded files on the cluster.
SHIPPED = "shipped:"
# Ray's job server accepts up to 500 MiB, and keeps it in the head's memory.
MAX_UPLOAD_BYTES = 400 * 2**20


def ship_files(spaces: Iterable[SearchSpace], folder: Path) -> list[dict[str, Any]]:
    """Returns the settings of spaces whose local files are copied to a folder, for an upload.

    Raises:
        SpecError: If they are larger than a job server accepts; then nothing is copied.
    """
    trees = [copy.deepcopy(space.source.tree) for space in spaces]
    found = [*local_settings(trees)]
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
