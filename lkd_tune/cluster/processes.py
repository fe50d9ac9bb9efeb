"""The processes of a Ray that is started on this machine for a search: all end with the search.

Ray's processes end by themselves if one of them or the driver is killed, but some take a minute.
They, and only they, have a variable with a random value in their environment. This file, run as a
script, is a process that waits until the driver has ended and then ends all that have it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

_VARIABLE = "LKD_TUNE_RAY"
# Rounds of killing: a process may start another one meanwhile.
_ROUNDS, _ROUND_S = 3, 3.0
_marks: list[str] = []


@contextlib.contextmanager
def marked_processes() -> Iterator[None]:
    """Marks the processes that are started inside.

    They end when the context does, or the process that entered it, however it ends.
    """
    mark = secrets.token_hex(16)
    _marks.append(mark)
    # -P: this file's folder has modules with the names of libraries.
    reaper = subprocess.Popen(
        [sys.executable, "-P", __file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # signals to the driver's group are not for it
    )
    outer = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = mark
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE)
        if outer is not None:  # this is a worker of another search's Ray
            os.environ[_VARIABLE] = outer
        _kill(mark)
        _marks.remove(mark)
        assert reaper.stdin is not None
        reaper.stdin.close()
        reaper.wait()


def kill_marked() -> None:
    """Kills all processes that this one has marked; returns when they have ended."""
    for mark in list(_marks):
        _kill(mark)


def _kill(mark: str) -> None:
    for _ in range(_ROUNDS):
        marked = [process for process in psutil.process_iter() if _has_mark(process, mark)]
        if not marked:
            return
        for process in marked:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(marked, timeout=_ROUND_S)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        # Ray's processes change their titles, which overwrites the start of what Linux shows as
        # their environment, so that it can't be parsed. The mark is at its end.
        if sys.platform == "linux":
            return mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
        return process.environ().get(_VARIABLE) == mark
    except (psutil.Error, OSError):  # another user's, or it has ended
        return False


def _reap(mark: str) -> None:
    """Waits until the driver, the other end of standard input, has ended; then ends the marked."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    _kill(mark)


if __name__ == "__main__":
    _reap(sys.argv[1])
