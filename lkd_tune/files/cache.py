"""The cache folder, and entries that the first process to ask for them builds."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from lkd_tune.files.atomic import remove_tree, sync_tree
from lkd_tune.files.disk import IN_CACHE, disk_space_for


def cache_dir() -> Path:
    """Returns the folder for trained teachers and tokenised data, shared by all runs of a user."""
    if chosen := os.environ.get("LKD_TUNE_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lkd_tune"


def node_cache(driver: str) -> Path:
    """Returns the cache of the node that this runs on.

    That is LKD_TUNE_NODE_CACHE, if it was set where Ray was started on this node: for nodes whose
    fast local disk is elsewhere than the driver's cache.

    Args:
        driver: The driver's cache, which is the default.
    """
    return Path(os.environ.get("LKD_TUNE_NODE_CACHE") or driver)


def get_or_build(
    entry: Path,
    build: Callable[[Path], None],
    what: str,
    *,
    is_complete: Callable[[Path], bool] = Path.exists,
) -> Path:
    """Returns a file or folder of the cache, built if it is not there.

    If several processes ask for it at the same time, one builds it and the others wait.

    Args:
        entry: Its path, which has to name everything that its content depends on.
        build: Writes it, as a file or a folder, to a path with the same suffix that does not exist
            yet. Called with the entry locked.
        what: The name of the content in messages, such as `the tokens`.
        is_complete: Whether what is there can be used; if not, it is removed and built again.

    Raises:
        FullDiskError: If the disk is full. What was written is removed.
    """
    from filelock import FileLock

    if is_complete(entry):
        return entry
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{entry}.lock"):
        if is_complete(entry):
            return entry
        remove_tree(entry)
        draft = entry.with_name(f".building-{uuid.uuid4().hex[:8]}-{entry.name}")
        try:
            with disk_space_for(f"{what} {IN_CACHE}", entry.parent):
                build(draft)
                sync_tree(draft)
            os.replace(draft, entry)
        except BaseException:
            remove_tree(draft)
            raise
    return entry
