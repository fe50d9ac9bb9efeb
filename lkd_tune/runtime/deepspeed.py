"""The small op that DeepSpeed compiles once: opened by one process at a time, never hung on.

PyTorch marks a compiled extension as being opened with a file, and whoever finds that file waits
for it to go, without limit. A process that is killed in that moment leaves it for good: from then
on every DeepSpeed process of the machine would stand still.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock

# For marks of processes on other machines, where the folder is shared: to open a compiled op takes
# a fraction of a second, to compile it up to a minute or two.
_OPENING_S, _COMPILING_S = 10.0, 300.0


@contextmanager
def opening_ops(root: Path | None = None) -> Iterator[None]:
    """Holds off other processes of this package, and removes marks of dead ones.

    Args:
        root: Folder of compiled extensions; none: PyTorch's.
    """
    if root is None:
        from torch.utils.cpp_extension import get_default_build_root

        root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    _own_programs_first()
    # Unlike PyTorch's mark, this lock goes with its process.
    with FileLock(root / "lkd_tune.lock"):
        for mark in root.glob("**/deepspeed_*/lock"):
            _wait_or_remove(mark)
        yield


def _own_programs_first() -> None:
    """Puts this environment's programs before the system's, ninja among them.

    Two versions of ninja take each other's builds for outdated: processes that find different ones
    would compile the op anew each time, for a minute.
    """
    own = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != own:
        os.environ["PATH"] = f"{own}{os.pathsep}{path}"


def _wait_or_remove(mark: Path) -> None:
    """Waits until a mark goes, or nobody can be at work there any more, and removes it.

    Processes of this package hold the lock, so it is none of them. Whoever made the mark keeps the
    file open while at work.
    """
    compiled = any(mark.parent.glob("*.so"))
    limit = _OPENING_S if compiled else _COMPILING_S
    while True:
        try:
            age = time.time() - mark.stat().st_mtime
        except FileNotFoundError:
            return
        if age > limit and not _is_open(mark):
            mark.unlink(missing_ok=True)
            return
        time.sleep(0.1)


def _is_open(path: Path) -> bool:
    """Returns whether a process of this machine has a file open, as far as this user may see."""
    for process in psutil.process_iter():
        try:
            if any(file.path == str(path) for file in process.open_files()):
                return True
        except psutil.Error:  # it has just ended, or is another user's
            continue
    return False
