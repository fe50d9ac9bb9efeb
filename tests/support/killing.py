"""Killing a worker in the midst of a step, from a thread that only watches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder, read_measurements

# Of the processor since its last checkpoint: it is at its steps, and not at writing that.
_BUSY_S = 0.15


@dataclass
class Kill:
    """What a thread has killed.

    Attributes:
        pid: The process of rank 0; None as long as there was no kill.
        measured: Steps that had been measured then.
    """

    pid: int | None = None
    measured: list[int] = field(default_factory=list)


def _rank_0(process: psutil.Process) -> list[psutil.Process]:
    return [process]


@contextmanager
def killing(
    run: RunFolder, trial: str, whom: Callable[[psutil.Process], list[psutil.Process]] = _rank_0
) -> Iterator[Kill]:
    """Kills a trial's worker (SIGKILL) while it trains on from its first checkpoint.

    Args:
        run: The run.
        trial: The trial's name.
        whom: Called with the process of rank 0; returns those that are to be killed.
    """
    folder, kill = TrialFolder(run.trial(trial)), Kill()

    def watch(over: threading.Event) -> None:
        while folder.read_checkpoint() is None:
            if over.wait(0.005):
                return
        start = folder.read_last_start()
        assert start is not None
        worker = psutil.Process(start["workers"][0]["pid"])
        busy = _seconds(worker) + _BUSY_S
        while _seconds(worker) < busy:
            if over.wait(0.005):
                return
        doomed = whom(worker)
        # Stopped first, so that nothing is written between the look and the kill.
        for process in (worker, *doomed):
            process.suspend()
        kill.pid, kill.measured = worker.pid, [m.step for m in read_measurements(folder.path)]
        for process in doomed:
            process.kill()
        if worker not in doomed:
            worker.resume()

    with watching(watch):
        yield kill


@contextmanager
def watching(watch: Callable[[threading.Event], None]) -> Iterator[None]:
    """Calls a function in a thread; the event it gets is set when it is to return."""
    over = threading.Event()
    thread = threading.Thread(target=watch, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _seconds(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])
