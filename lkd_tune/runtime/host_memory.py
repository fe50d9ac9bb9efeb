"""The memory that this process may take, which in a container is less than the machine's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def host_memory(
    own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> tuple[int, int]:
    """Returns the bytes there are in all and those that are free.

    Pods, containers and batch jobs are limited by control groups; a process that takes more is
    killed, whatever the machine has.

    Args:
        own: Names this process's groups, see cgroups(7).
        groups: Where groups are files: their limits, and what is taken of them.
    """
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for limit, taken in _limits(own, groups):
        if limit < machine.total:  # a group of version 1 without a limit has a huge one
            total, free = min(total, limit), min(free, max(0, limit - taken))
    return total, free


def _limits(own: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """Yields the limit and the use of each memory group around this process."""
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        limit, taken = _FILES[1] if controllers else _FILES[0]
        # A container may see its own group as the root, whatever the path says.
        inner = root / path.lstrip("/")
        for group in {inner, *inner.parents, root}:
            try:
                yield int((group / limit).read_text("utf-8")), int((group / taken).read_text())
            except (OSError, ValueError):  # none, "max", or a group of somebody else's
                continue
