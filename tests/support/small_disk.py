"""A disk of some megabytes that is full in earnest: a tmpfs in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class SmallDisk:
    """A disk that goes with the process which holds it; a context.

    Attributes:
        works: Whether such may be made here.
        path: Where it is seen.
    """

    def __init__(self, point: Path, kb: int):
        point.mkdir(parents=True)
        self._point, mount = point, f"mount -t tmpfs -o size={kb}k tmpfs {point}"
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", f"{mount} && echo there && exec sleep infinity"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        self.works = self._holder.stdout.readline() == "there\n"
        self.path = Path(f"/proc/{self._holder.pid}/root{point}")

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.communicate()

    def grow(self, kb: int) -> None:
        """Gives the disk another size."""
        enter = f"nsenter --user --preserve-credentials --mount --target {self._holder.pid}"
        remount = f"mount -o remount,size={kb}k {self._point}"
        subprocess.run(f"{enter} {remount}".split(), check=True)

    def fill(self, free_kb: int = 0) -> None:
        """Takes all room but so much."""
        status = os.statvfs(self.path)
        size = status.f_bavail * status.f_bsize - free_kb * 1024
        (self.path / "other").write_bytes(bytes(size))

    def empty(self) -> None:
        """Gives back what `fill` took."""
        (self.path / "other").unlink()
