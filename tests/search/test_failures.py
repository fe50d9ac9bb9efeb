"""Trials that fail, and processes that die: on a real Ray, with tiny models."""

from __future__ import annotations

import json
import os
import signal

import pytest
from optuna.trial import TrialState

from lkd_tune.search.follower import Follower
from lkd_tune.search.study import open_study
from lkd_tune.search.tuner import run_search
from lkd_tune.spec.run import BASELINE, RunFolder
from tests.tiny import LABELS, make_space

pytestmark = pytest.mark.usefixtures("two_cores")


def test_a_trial_that_fails_ends_and_the_search_goes_on(tmp_path, processes):
    space = make_space(
        tmp_path,
        layer_map="skip",
        student={"depth": 2},
        losses=LABELS,
        train={"lr": {"choice": [1e-3, 1e30]}, "steps": 4},
        search={"trials": 2, "concurrency": 1, "scheduler": "none"},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    states = {record.spec.train.lr: record.state for record in run.read_trials()}
    assert states == {1e-3: "complete", 1e30: "failed"}
    ((name, reason),) = result.failures.items()
    assert reason.startswith("DivergedError: the loss logits is nan")
    assert "Traceback" in (run.trial(name) / "error.txt").read_text()
    assert not result.all_failed
    assert len(set.union(*processes.values())) == 1  # the process is as good as before
    assert {t.state for t in open_study(run.study).trials} == {
        TrialState.COMPLETE,
        TrialState.FAIL,
    }


def test_a_search_in_which_all_trials_fail_says_so(tmp_path):
    space = make_space(
        tmp_path,
        train={"lr": {"uniform": [1e29, 1e30]}, "steps": 4},
        search={"trials": 2, "baseline": True},
    )
    result = run_search(space, RunFolder(tmp_path / "run"), quiet=True)
    assert result.all_failed
    assert result.best is None
    assert len(result.failures) == 2
    assert not (tmp_path / "run" / "trials" / BASELINE).exists()


def test_a_trial_whose_process_dies_goes_on_in_another_from_its_checkpoint(
    tmp_path, processes, monkeypatch
):
    space = make_space(
        tmp_path,
        train={"steps": 40, "evaluations": 5},
        search={"trials": 1, "max_failures": 1},
    )
    seen_by = Follower.on_trial_result
    killed: list[int] = []

    def kill_at_step_10(self, iteration, trials, trial, result, **info):
        seen_by(self, iteration, trials, trial, result, **info)
        if result.get("step") == 10 and not killed:
            killed.append(result["pid"])
            os.kill(result["pid"], signal.SIGKILL)

    monkeypatch.setattr(Follower, "on_trial_result", kill_at_step_10)
    run = RunFolder(tmp_path / "run")
    run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.state == "complete"
    assert len(killed) == 1
    assert len(processes["0000"]) == 2
    # Each step was measured once: nothing that a checkpoint held was done again.
    lines = (run.trial("0000") / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 5, 10, 20, 40]


def test_a_trial_that_loses_its_process_too_often_has_failed(tmp_path, monkeypatch):
    space = make_space(
        tmp_path, train={"steps": 40}, search={"trials": 2, "max_failures": 0, "concurrency": 1}
    )
    seen_by = Follower.on_trial_result

    def kill_the_first(self, iteration, trials, trial, result, **info):
        seen_by(self, iteration, trials, trial, result, **info)
        if trial.config["name"] == "0000":
            os.kill(result["pid"], signal.SIGKILL)

    monkeypatch.setattr(Follower, "on_trial_result", kill_the_first)
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    assert [record.state for record in run.read_trials()] == ["failed", "complete"]
    assert result.failures == {"0000": "its worker or node was lost 1 time(s)"}
    assert (run.trial("0000") / "error.txt").exists()
    assert not [*(run.path / "trials").glob("*/checkpoint-*")]
