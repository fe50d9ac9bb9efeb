"""Several processes that train one student: in step, and when one of them is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lkd_tune.cluster.nodes import NodeRequirements
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.execution.rank import Rank
from lkd_tune.tuning.execution.worker_group import LostWorkerError, WorkerGroup
from lkd_tune.tuning.tuner import run_search
from tests.support.tiny import make_space
from tests.support.worker_ranks import TWO, ranks_of

pytestmark = pytest.mark.usefixtures("two_cores")


def test_two_workers_train_students_and_survive_a_failure(tmp_path, processes):
    space = make_space(
        tmp_path,
        resources=TWO,
        student={"depth": 2},
        layer_map="skip",
        losses={},
        train={"lr": {"choice": [1e-3, 1e30]}, "steps": 6},
        search={"trials": 2, "scheduler": "none"},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    states = {record.spec.train.lr: record.state for record in run.read_trials()}
    assert states == {1e-3: "complete", 1e30: "failed"}
    assert "DivergedError" in str(result.failures)
    assert (run.student(result.best or "") / "model.safetensors").exists()
    assert len(set.union(*processes.values())) == 1
    outcome = run.read_trial(result.best or "").outcome
    assert outcome is not None
    assert outcome.cpu_s == 2 * outcome.wall_s


@pytest.mark.parametrize(("gpus", "hidden"), [(0, True), (1, False), (0.5, False)])
def test_a_rank_without_a_gpu_sees_none(tmp_path, gpus, hidden):
    """Ray leaves a process that asked for no GPU all that its node has."""

    shown = {"env_vars": {"CUDA_VISIBLE_DEVICES": "0"}}

    @ray.remote(num_cpus=1, max_calls=1, runtime_env=shown)
    def seen() -> str:
        Rank(1, gpus, str(tmp_path), NodeRequirements(None, {}))
        return os.environ["CUDA_VISIBLE_DEVICES"]

    assert ray.get(seen.remote()) == ("" if hidden else "0")


@ray.remote(num_cpus=1)
class Leader:
    """Stands where the trainable does: in bundle 0 of a placement group."""

    def __init__(self, told: Path) -> None:
        resources = ResourceSettings(workers=2, cpus=1)
        needs = NodeRequirements(None, {})
        self.group = WorkerGroup(
            resources, os.getcwd(), lambda error: told.write_text(str(error)), needs
        )

    def run(self, method: str, *arguments: Any) -> Any:
        return self.group.run(method, *arguments)

    def begin_alone(self, spec: str, cache: str, pace: str) -> None:
        """Begins a trial that rank 1 can't begin: rank 0 waits for it in a collective call."""
        more = (cache, None, 1, [], pace)
        self.group._lockstep("begin", [(spec, *more), ("no spec", *more)])

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def leader(tmp_path):
    group = ray.util.placement_group([{"CPU": 1}] * 2)
    strategy = PlacementGroupSchedulingStrategy(group, 0)
    yield Leader.options(scheduling_strategy=strategy).remote(tmp_path / "told.txt")
    ray.util.remove_placement_group(group)


def test_what_a_rank_raises_is_raised(leader):
    with pytest.raises(AttributeError, match="has no attribute 'evaluate'"):
        ray.get(leader.run.remote("evaluate", "dev"))


def test_a_lost_rank_is_reported_as_such(leader):
    ray.get(leader.run.remote("end"))
    for process in ranks_of(ray.get(leader.pid.remote())):
        process.send_signal(signal.SIGKILL)
    with pytest.raises(LostWorkerError):
        ray.get(leader.run.remote("end"))


@pytest.mark.slow
def test_a_rank_that_waits_for_one_that_failed_ends_after_reporting_why(leader, tmp_path):
    space = make_space(tmp_path, resources=TWO, student={"depth": 1}, layer_map="skip", losses={})
    spec = space.draw(
        None,  # type: ignore[arg-type]  # nothing is left to draw
        teacher=str(tmp_path / "teacher"),
        teacher_layers=4,
        seed=0,
    )
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(
            leader.begin_alone.remote(
                spec.to_json(), str(tmp_path / "cache"), str(tmp_path / "pace")
            ),
            timeout=60,
        )
    assert "Invalid JSON" in (tmp_path / "told.txt").read_text()
