"""A search in a process of its own with a Ray of its own, as on a user's machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from lkd_tune.records.run import RunFolder
from tests.support.tiny import LABELS, make_space

DRIVER = """
import sys
from pathlib import Path
import ray
from lkd_tune.cluster.ray import quieten_ray
from lkd_tune.tuning.tuner import resume_search, run_search
from lkd_tune.records.run import RunFolder
from lkd_tune.config.read_space import load_space

if __name__ == "__main__":
    folder, what = Path(sys.argv[1]), sys.argv[2]
    run = RunFolder(folder / what)
    if run.manifest.exists():
        result = resume_search(run)
    else:
        result = run_search(load_space(folder / "space.yaml"), run)
    print("result", result.best, result.interrupted, result.trials)
"""
PATIENCE_S = 240


def start(folder: Path, what: str = "run") -> subprocess.Popen[str]:
    script = folder / "driver.py"
    script.write_text(DRIVER)
    log = (folder / f"{what}.log").open("a")
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), what],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def wait_until(there: Callable[[], bool], driver: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not there():
        assert driver is None or driver.poll() is None, "the driver ended too early"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def family(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def has_checkpoint(run: RunFolder, least: str) -> Callable[[], bool]:
    """Whether a trial of at least that name is on its way."""
    return lambda: any(p.parent.name >= least for p in run.path.glob("trials/*/checkpoint-*"))


def what_became(run: RunFolder) -> dict[str, tuple[str, str, list[tuple[int, float]]]]:
    """Spec, end and scores of each trial: all that must not depend on when it was killed."""
    return {
        record.name: (
            record.spec.digest(),
            record.state,
            [(m.step, m.score) for m in record.measurements],
        )
        for record in run.read_trials()
    }


def write_space(folder: Path, **search: Any) -> None:
    make_space(
        folder,
        losses={**LABELS, "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 1}},
        student={"depth": {"int": [1, 2]}},
        train={"lr": {"choice": [1e-9, 1e-2]}, "steps": 240, "evaluations": 4},
        search=search,
        keep={"top": 2},
    )
