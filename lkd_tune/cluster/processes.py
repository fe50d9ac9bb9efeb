"""The processes of a Ray that is started on this machine for a search: all end with the search.

Ray's processes end by themselves if one of them or the driver is killed, but some take a minute.
They, and only they, have a variable with a random value, the mark, in their environment. Two of
them, Ray's agents, change their titles, and may overwrite the mark by that; they are noted when
they have started. This file, run as a script, is a process that waits until the driver has ended,
and then ends the others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import psutil

_VARIABLE = "LKD_TUNE_RAY"
# Rounds of killing: a process may start another one meanwhile.
_ROUNDS, _ROUND_S = 3, 3.0
_current: MarkedProcesses | None = None


class MarkedProcesses:
    """Marks the processes that are started in this context.

    They end when the context does, or the process that entered it, however it ends.
    """

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)
        self._noted: list[psutil.Process] = []

    def __enter__(self) -> MarkedProcesses:
        global _current
        # -P: this file's folder has modules with the names of libraries.
        self._reaper = subprocess.Popen(
            [sys.executable, "-P", __file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # signals to the driver's group are not for it
            text=True,
        )
        self._outer = os.environ.get(_VARIABLE)  # if this is a worker of another search's Ray
        os.environ[_VARIABLE] = self._mark
        _current = self
        return self

    def __exit__(self, *_: object) -> None:
        global _current
        _current = None
        os.environ.pop(_VARIABLE)
        if self._outer is not None:
            os.environ[_VARIABLE] = self._outer
        self.kill()
        assert self._reaper.stdin is not None
        with contextlib.suppress(OSError):
            self._reaper.stdin.close()
        self._reaper.wait()

    def note(self) -> None:
        """Notes all processes that there are now, with what they have started."""
        self._noted = _marked(self._mark)
        assert self._reaper.stdin is not None
        with contextlib.suppress(OSError):  # somebody has killed it
            for process in self._noted:
                print(process.pid, process.create_time(), file=self._reaper.stdin)
            self._reaper.stdin.flush()

    def kill(self) -> None:
        """Kills all of them; returns when they have ended."""
        _kill(self._mark, self._noted)


def kill_marked() -> None:
    """Kills all processes that this one has marked; returns when they have ended."""
    if _current is not None:
        _current.kill()


def _kill(mark: str, noted: list[psutil.Process]) -> None:
    for _ in range(_ROUNDS):
        # `is_running` tells a process from a later one with its number.
        left = {process for process in noted if process.is_running()} | {*_marked(mark)}
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=_ROUND_S)


def _marked(mark: str) -> list[psutil.Process]:
    """Returns all processes with a mark, and what they have started."""
    found = {process for process in psutil.process_iter() if _has_mark(process, mark)}
    for process in list(found):
        with contextlib.suppress(psutil.Error):
            found.update(process.children(recursive=True))
    return [*found]


def _has_mark(process: psutil.Process, mark: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        # It can't be parsed where a process has overwritten the start of its environment.
        if sys.platform == "linux":
            return mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
        return process.environ().get(_VARIABLE) == mark
    except (psutil.Error, OSError):  # another user's, or it has ended
        return False


def _reap(mark: str) -> None:
    """Waits until the driver, the other end of standard input, has ended; then ends the marked."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    noted = []
    for line in sys.stdin:
        pid, _, created = line.partition(" ")
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(created)) < 1:
                noted.append(process)
    _kill(mark, noted)


if __name__ == "__main__":
    _reap(sys.argv[1])
