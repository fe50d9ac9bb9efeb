"""Killing workers in the midst of a step, from a thread that only watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from lkd_tune.search.trial_folder import TrialFolder
from lkd_tune.spec.run import RunFolder, read_measurements

# Of the processor since its last checkpoint: it is at its steps, and not at writing that.
_BUSY_S = 0.15


@dataclass
class Kills:
    """What a thread has killed.

    Attributes:
        pids: Those processes of rank 0 whose gang was hit.
        at: Steps that had been measured then, each time.
    """

    pids: list[int] = field(default_factory=list)
    at: list[list[int]] = field(default_factory=list)


def _rank_0(process: psutil.Process) -> list[psutil.Process]:
    return [process]


@contextmanager
def killing(
    run: RunFolder,
    trial: str,
    times: int = 1,
    *,
    whom: Callable[[psutil.Process], list[psutil.Process]] = _rank_0,
) -> Iterator[Kills]:
    """Kills a trial's workers (SIGKILL) while they train, each time after another checkpoint.

    Args:
        run: The run.
        trial: The trial's name.
        times: How often.
        whom: Called with the process of rank 0; returns those that are to be killed.
    """
    folder, kills, over = TrialFolder(run.trial(trial)), Kills(), threading.Event()

    def wait_for_checkpoint(after: int) -> int:
        while not over.is_set():
            for path in folder.path.glob("checkpoint-*"):
                if (step := int(path.name.partition("-")[2])) > after:
                    return step
            time.sleep(0.005)
        return after

    def kill() -> None:
        step = 0
        for _ in range(times):
            step = wait_for_checkpoint(step)
            start = folder.read_start()
            if over.is_set() or start is None:
                return
            worker = psutil.Process(start["workers"][0]["pid"])
            busy = _seconds(worker) + _BUSY_S
            while _seconds(worker) < busy and not over.is_set():
                time.sleep(0.005)
            doomed = whom(worker)
            # Stopped first, so that nothing is written between the look and the kill.
            for process in (worker, *doomed):
                process.suspend()
            kills.at.append([m.step for m in read_measurements(folder.path)])
            kills.pids.append(worker.pid)
            for process in doomed:
                process.kill()
            if worker not in doomed:
                worker.resume()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield kills
    finally:
        over.set()
        thread.join()


def _seconds(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])
