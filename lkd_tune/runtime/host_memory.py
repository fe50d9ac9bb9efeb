"""The memory that this process may use; in a container it is less than the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# Names of the files with limit and use, in version 2 and version 1 of control groups.
_LIMIT_AND_USE = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def host_memory(
    own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> tuple[int, int]:
    """Returns total and free memory in bytes.

    Control groups limit pods, containers and batch jobs. A process that exceeds its group's limit
    is killed, however much memory the machine has.

    Args:
        own: File that names this process's groups, see cgroups(7).
        groups: Folder of the groups, with files of their limits and use.
    """
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for limit, taken in _limits(own, groups):
        if limit < machine.total:  # without a limit, version 1 states a huge one
            total, free = min(total, limit), min(free, max(0, limit - taken))
    return total, free


def _limits(own: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """Yields limit and use in bytes of each memory group that contains this process."""
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        limit, taken = _LIMIT_AND_USE[1] if controllers else _LIMIT_AND_USE[0]
        # A container may see its own group as the root, regardless of the path.
        inner = root / path.lstrip("/")
        for group in {inner, *inner.parents, root}:
            try:
                yield int((group / limit).read_text("utf-8")), int((group / taken).read_text())
            except (OSError, ValueError):  # no file, "max", or another user's group
                continue
