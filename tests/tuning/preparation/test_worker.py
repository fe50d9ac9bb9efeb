"""The preparation worker: one process, whose cost is recorded, and whose lost jobs run again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lkd_tune.cluster.nodes import NodeRequirements, SearchNodes
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.source import parse_source
from lkd_tune.records.manifest import write_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.preparation.worker import PreparationWorker
from tests.system.driver import wait_until

pytestmark = pytest.mark.usefixtures("two_cores")

SPACE = "task: {name: sst2, train: train.csv, dev: dev.csv}\nteacher: somewhere\n"


@pytest.fixture
def session(tmp_path):
    run, settings = RunFolder(tmp_path), build_space(parse_source(SPACE, "space.yaml")).settings
    write_manifest(run, {})
    nodes = SearchNodes(NodeRequirements(None, {}), settings.resources, print)
    return SimpleNamespace(
        run=run, stop=SimpleNamespace(reason=None), settings=settings, nodes=nodes
    )


def _working(threads: int, seconds: float) -> int:
    time.sleep(seconds)
    return threads


def _waiting(threads: int, note: str) -> None:
    Path(note).write_text(str(os.getpid()), "utf-8")
    time.sleep(600)


def _failing(threads: int, seconds: float) -> None:
    time.sleep(seconds)
    raise SpecError(Problem("data.csv", "", "is not there"))


def _own_id(threads: int) -> int:
    return os.getpid()


def _dying_once(threads: int, note: str) -> int:
    if not Path(note).exists():
        Path(note).write_text(str(os.getpid()), "utf-8")
        os._exit(1)
    return os.getpid()


def test_the_cost_of_a_job_is_recorded_however_it_ends(session):
    def seconds() -> float:
        cost = session.run.read_manifest()["costs"]["test"]
        assert cost["cpu_s"] == 2 * cost["wall_s"]  # a node of two cores
        assert cost["gpu_s"] == cost["energy_j"] == 0
        return cost["wall_s"]

    with PreparationWorker(session) as worker:
        assert worker.run("test", _working, 0.2) == 2
        first = seconds()
        assert first >= 0.2
        with pytest.raises(SpecError, match="is not there"):
            worker.run("test", _failing, 0.3)
        second = seconds()
        assert second - first >= 0.3

        def interrupt() -> None:
            session.stop.reason = "interrupted"

        assert worker.run("test", _working, 60, poll=interrupt) is None
        assert 0 < seconds() - second < 60


def test_one_process_runs_all_jobs_and_ends_with_the_block(session):
    with PreparationWorker(session) as worker:
        first, second = worker.run("test", _own_id), worker.run("test", _own_id)
        assert first == second
    wait_until(lambda: not psutil.pid_exists(first))


def test_it_takes_the_whole_of_a_larger_node_that_has_joined(session, monkeypatch):
    with PreparationWorker(session) as worker:
        with monkeypatch.context() as before:
            before.setattr(session.nodes, "max_cpus", lambda: 0)
            assert worker.run("test", _working, 0) == 1
        assert worker.run("test", _working, 0) == 2


def test_a_job_runs_again_if_its_process_is_lost(session, tmp_path):
    note = tmp_path / "note"
    with PreparationWorker(session) as worker:
        found = worker.run("test", _dying_once, str(note))
        assert found != int(note.read_text("utf-8"))
        assert worker.run("test", _own_id) == found


def test_an_interrupted_job_ends_silently(session, tmp_path, capfd):
    note = tmp_path / "note"

    def interrupt() -> None:
        if note.exists() and note.read_text("utf-8"):
            session.stop.reason = "interrupted"

    with PreparationWorker(session) as worker:
        assert worker.run("test", _waiting, str(note), poll=interrupt) is None
    wait_until(lambda: not psutil.pid_exists(int(note.read_text("utf-8"))))
    time.sleep(2)  # in which Ray would tell that it tries again
    assert capfd.readouterr().out == ""
