"""What a search says before its first trial."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from lkd_tune.search.manifest import write_manifest
from lkd_tune.search.nodes import Needs, SearchNodes
from lkd_tune.search.preparation import _moved, doubt_of_teacher
from lkd_tune.search.tasks import run_task
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.run import RunFolder
from lkd_tune.spec.source import parse_source
from lkd_tune.spec.space import build_space
from lkd_tune.spec.start import Start

TASK = "task: {name: sst2, train: train.csv, dev: dev.csv}\n"


def settings(teacher: str):
    return build_space(parse_source(TASK + teacher, "space.yaml")).settings


def test_a_teacher_that_knows_something_is_not_doubted():
    assert doubt_of_teacher(settings("teacher: somewhere"), 0.01) is None


def test_of_a_useless_teacher_it_is_said_what_to_look_at():
    given = doubt_of_teacher(settings("teacher: somewhere"), 0.0)
    assert given is not None
    assert "task.labels" in given
    trained = doubt_of_teacher(settings("teacher: {train: {model: bert, epochs: 1}}"), -0.02)
    assert trained is not None
    assert "teacher.train.epochs" in trained


def test_it_is_told_what_stands_for_a_value_that_the_space_lacks():
    start = Start(
        "published", {"train.lr": 0.00122474, "x": "no"}, {"train.lr": 5e-5, "x": 1, "y": 2}
    )
    told = [_moved(start, name) for name in start.moved]
    assert told == ["train.lr 5e-05 (0.00122 instead)", "x 1 (no instead)", "y 2"]


def _working(threads: int, seconds: float) -> int:
    time.sleep(seconds)
    return threads


def _failing(threads: int, seconds: float) -> None:
    time.sleep(seconds)
    raise SpecError(Problem("data.csv", "", "is not there"))


@pytest.mark.usefixtures("two_cores")
def test_work_beside_the_trials_is_counted_however_it_ends(tmp_path):
    run, stop = RunFolder(tmp_path), SimpleNamespace(reason=None)
    write_manifest(run, {})
    given = settings("teacher: somewhere")
    nodes = SearchNodes(Needs(None, {}), given.resources, print)
    session = SimpleNamespace(run=run, stop=stop, settings=given, nodes=nodes)

    def seconds() -> float:
        cost = run.read_manifest()["costs"]["test"]
        assert cost["cpu_s"] == 2 * cost["wall_s"]  # a node of two cores
        assert cost["gpu_s"] == cost["energy_j"] == 0
        return cost["wall_s"]

    assert run_task(session, "test", _working, 0.2) == 2
    first = seconds()
    assert first >= 0.2
    with pytest.raises(SpecError, match="is not there"):
        run_task(session, "test", _failing, 0.3)
    second = seconds()
    assert second - first >= 0.3

    def interrupt() -> None:
        stop.reason = "interrupted"

    assert run_task(session, "test", _working, 60, poll=interrupt) is None
    assert 0 < seconds() - second < 60
