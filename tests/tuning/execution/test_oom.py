"""Workers that are killed for want of the host's memory: by the kernel, and by Ray."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.tuning.tuner import run_search
from tests.support.killing import watching
from tests.support.rays import own_ray
from tests.support.tiny import make_space

# Of a group, and by a training on whole micro-batches in it.
LIMIT_MIB, USED_MIB = 700, 1800
# Used before Ray calls its node full.
ROOM_BYTES = 3 * 2**30


def _use_memory() -> None:
    """Has trainings use as much memory as if they had large micro-batches."""
    from lkd_tune.distillation.engine import Distillation

    train_until = Distillation._train_until

    def with_much_memory(self, until):
        held = bytearray(USED_MIB * 2**20 // self._accumulation)
        measurement = train_until(self, until)
        del held
        return measurement

    Distillation._train_until = with_much_memory


@contextmanager
def group_with_little_memory() -> Iterator[Path]:
    """A control group whose processes the kernel kills when they want more."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    group = (first if first.exists() else second) / f"lkd-tune-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if first.exists() else "memory.max")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control groups can be made here: {error}")
    try:
        if not limit.exists():
            pytest.skip("no memory controller here")
        limit.write_text(str(LIMIT_MIB * 2**20))
        yield group
    finally:
        deadline = time.monotonic() + 20
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        group.rmdir()


@contextmanager
def moving_into(group: Path, folder: TrialFolder) -> Iterator[set[int]]:
    """Puts each process that begins with a trial into a group; gives those that were."""
    moved: set[int] = set()

    def watch(over: threading.Event) -> None:
        while not over.wait(0.01):
            start = folder.read_last_start()
            pid = start["workers"][0]["pid"] if start else None
            if pid is not None and pid not in moved:
                (group / "cgroup.procs").write_text(str(pid))
                moved.add(pid)

    with watching(watch):
        yield moved


@pytest.mark.slow
def test_a_trial_that_the_kernel_kills_continues_with_smaller_micro_batches(tmp_path):
    space = make_space(tmp_path, search={"trials": 1, "max_failures": 1})
    run = RunFolder(tmp_path / "run")
    with (
        group_with_little_memory() as group,
        own_ray(1, runtime_env={"worker_process_setup_hook": _use_memory}),
        moving_into(group, TrialFolder(run.trial("0000"))) as moved,
    ):
        run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.state == "complete", record.outcome
    # It was killed with whole and with halved ones, which is more than max_failures allows.
    assert record.accumulation == 4
    assert len(moved) == 3
    assert [m.step for m in record.measurements] == [2, 4, 8]


@contextmanager
def using_memory(folder: TrialFolder, up_to: float) -> Iterator[None]:
    """Has this process use more than so large a share of all memory, until a trial is cut down."""

    def use(over: threading.Event) -> None:
        held = []
        while not over.wait(0.02) and folder.read_accumulation() == 1:
            memory = psutil.virtual_memory()
            if folder.read_last_start() and 1 - memory.available / memory.total < up_to + 0.01:
                held.append(bytearray(64 * 2**20))

    with watching(use):
        yield


@pytest.mark.slow
def test_a_trial_that_ray_kills_continues_with_smaller_micro_batches(tmp_path):
    space = make_space(
        tmp_path,
        train={"steps": 1000, "evaluations": 2},
        search={"trials": 1, "max_failures": 0},
    )
    run = RunFolder(tmp_path / "run")
    memory = psutil.virtual_memory()
    most = 1 - (memory.available - ROOM_BYTES) / memory.total
    if most > 0.9:
        pytest.skip("too little memory is free")
    monitor = {"memory_usage_threshold": most, "memory_monitor_refresh_ms": 100}
    folder = TrialFolder(run.trial("0000"))
    with own_ray(1, _system_config=monitor), using_memory(folder, most):
        result = run_search(space, run, quiet=True)
    assert result.failures == {}
    (record,) = run.read_trials()
    assert record.state == "complete"
    assert record.accumulation == 2
    starts = (folder.path / "workers.jsonl").read_text().splitlines()
    assert len({json.loads(start)["workers"][0]["pid"] for start in starts}) == 2
