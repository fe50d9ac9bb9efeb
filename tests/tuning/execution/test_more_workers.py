"""A search that was stopped goes on with another number of workers for each trial."""

from __future__ import annotations

import json

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.execution.callback import SearchCallback
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.tiny import make_space

pytestmark = [pytest.mark.usefixtures("two_cores"), pytest.mark.slow]


def test_a_trial_of_two_workers_continues_with_four(tmp_path, monkeypatch, capsys):
    space = make_space(
        tmp_path,
        student={"depth": 2},
        layer_map="skip",
        losses={},
        resources={"workers": 2, "cpus": 0.5, "zero_stage": 2},
        train={"steps": 200, "evaluations": 3},
        search={"trials": 1},
    )
    seen_by = SearchCallback.on_trial_result

    def interrupt(self, *arguments, **info):
        seen_by(self, *arguments, **info)
        self._stop.reason = "interrupted"

    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr(SearchCallback, "on_trial_result", interrupt)
    assert run_search(space, run, quiet=True).interrupted
    monkeypatch.setattr(SearchCallback, "on_trial_result", seen_by)

    with pytest.raises(SpecError, match=r"batch_size 16 can't be split evenly over 3 workers"):
        resume_search(run, overrides=["resources.workers=3"])
    resume_search(run, overrides=["resources.workers=4"])
    told = "4 workers per trial from now on, 2 before; this applies to 1 unfinished trial, too"
    assert told in capsys.readouterr().out
    assert load_space(run.space).settings.resources.workers == 4
    (record,) = run.read_trials()
    assert record.state == "complete"
    assert record.spec.resources.workers == 4
    # None of its steps was done twice, and it is told what it held.
    lines = (run.trial("0000") / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [50, 100, 200]
    workers = (run.trial("0000") / "workers.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["workers"]) for line in workers] == [2, 4]
    assert record.outcome is not None
    held = record.outcome.cpu_s / 0.5 / record.outcome.wall_s
    assert 2 < held < 4
