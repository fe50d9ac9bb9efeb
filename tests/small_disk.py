"""A disk of some hundred kB that is full in earnest: a tmpfs in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any


class SmallDisk:
    """A folder that is a disk; a context that leaves no mount behind.

    Attributes:
        path: The folder for processes that `start` starts. For others it stays empty.
        seen: The same for this process.
    """

    def __init__(self, path: Path, kb: int):
        path.mkdir(parents=True)
        self.path, mount = path, f"mount -t tmpfs -o size={kb}k tmpfs {path}"
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", f"{mount} && echo there && exec sleep infinity"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        self.works = self._holder.stdout.readline() == "there\n"
        self.seen = Path(f"/proc/{self._holder.pid}/root{path}")

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.communicate()

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Starts a process that has the disk."""
        inside = f"nsenter --user --preserve-credentials --mount --target {self._holder.pid}"
        where = f"--wd={options.pop('cwd', os.getcwd())}"
        return subprocess.Popen([*inside.split(), where, *command], text=True, **options)

    def grow(self, kb: int) -> None:
        """Gives the disk another size."""
        assert self.start("mount", "-o", f"remount,size={kb}k", str(self.path)).wait() == 0

    def fill(self, free_kb: int = 0) -> None:
        """Takes all room but so much."""
        status = os.statvfs(self.seen)
        size = status.f_bavail * status.f_bsize - free_kb * 1024
        (self.seen / "other").write_bytes(bytes(size))
