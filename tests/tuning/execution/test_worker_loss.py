"""A worker group that loses a worker in the middle of a step."""

from __future__ import annotations

import json

import pytest

from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.tuner import run_search
from tests.support.killing import killing
from tests.support.tiny import make_space
from tests.support.worker_ranks import TWO, ranks_of

pytestmark = pytest.mark.usefixtures("two_cores")


@pytest.mark.slow
def test_a_group_that_loses_a_worker_in_a_step_is_replaced_and_continues(tmp_path, processes):
    space = make_space(
        tmp_path,
        resources=TWO,
        search={"trials": 1, "max_failures": 1},
        train={"steps": 800, "evaluations": 4},
    )
    run = RunFolder(tmp_path / "run")
    with killing(run, "0000", whom=lambda worker: ranks_of(worker.pid)) as kill:
        run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.state == "complete"
    assert kill.measured == [100]
    assert len({kill.pid} | processes["0000"]) == 2
    # What was lost is less than one interval: that between the first checkpoint and the next.
    lines = (run.trial("0000") / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [100, 200, 400, 800]
