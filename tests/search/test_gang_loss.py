"""A gang that loses a member in the middle of a trial."""

from __future__ import annotations

import json
import signal
import time

import pytest

from lkd_tune.search.follower import Follower
from lkd_tune.search.tuner import run_search
from lkd_tune.spec.run import RunFolder
from tests.search.ranks import TWO, ranks_of
from tests.tiny import make_space

pytestmark = pytest.mark.usefixtures("two_cores")


@pytest.mark.slow
def test_a_gang_that_loses_a_worker_is_replaced_and_goes_on(tmp_path, processes, monkeypatch):
    space = make_space(
        tmp_path,
        resources=TWO,
        search={"trials": 1, "max_failures": 1},
        train={"steps": 400, "evaluations": 4},
    )
    seen_by = Follower.on_trial_result
    lost: list[float] = []

    def kill_rank_1(self, iteration, trials, trial, result, **info):
        seen_by(self, iteration, trials, trial, result, **info)
        if result.get("step") == 100 and not lost:
            lost.append(time.monotonic())
            for process in ranks_of(result["pid"]):
                process.send_signal(signal.SIGKILL)

    monkeypatch.setattr(Follower, "on_trial_result", kill_rank_1)
    run = RunFolder(tmp_path / "run")
    run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.state == "complete"
    assert len(lost) == 1
    assert len(processes["0000"]) == 2
    lines = (run.trial("0000") / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [50, 100, 200, 400]
