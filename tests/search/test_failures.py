"""Trials that fail, and processes that die: on a real Ray, with tiny models."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file

from lkd_tune.distill.models import load_tokenizer
from lkd_tune.distill.whole import distill
from lkd_tune.search.follower import Follower
from lkd_tune.search.study import open_study
from lkd_tune.search.tuner import run_search
from lkd_tune.spec.run import BASELINE, RunFolder
from tests.tiny import LABELS, make_space

torch.set_num_threads(1)  # as the trials have, for results that are equal

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
    # The sampler learns it, and puts it behind all others.
    told = {t.user_attrs["name"]: t for t in open_study(run.study).trials}
    diverged, (other,) = told.pop(name), told.values()
    assert (diverged.state, diverged.constraints) == (TrialState.PRUNED, {"diverged": 1.0})
    assert other.state == TrialState.COMPLETE


def test_an_example_that_no_student_can_learn_from_is_named_or_left_out(tmp_path):
    space = make_space(
        tmp_path,
        rows=128,
        layer_map="skip",
        student={"depth": 2},
        losses={},
        train={"bad_examples": {"choice": ["stop", "skip"]}, "steps": 16},
        search={"trials": 2, "concurrency": 1, "scheduler": "none"},
    )
    data = tmp_path / "data" / "train.csv"
    lines = data.read_text().splitlines()
    lines[40] = f"[MASK] {lines[40]}"
    data.write_text("\n".join(lines) + "\n")
    teacher = tmp_path / "teacher" / "model.safetensors"
    weights = load_file(teacher)
    mask = load_tokenizer(str(teacher.parent)).mask_token_id
    weights["bert.embeddings.word_embeddings.weight"][mask] = float("nan")
    save_file(weights, teacher, {"format": "pt"})
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    records = {record.spec.train.bad_examples: record for record in run.read_trials()}
    assert {choice: record.state for choice, record in records.items()} == {
        "stop": "failed",
        "skip": "complete",
    }
    (reason,) = result.failures.values()
    assert "train row 40 (wr_pair is nan)" in reason
    assert "set train.bad_examples=skip" in reason
    for record in records.values():
        (bad,) = json.loads((run.trial(record.name) / "bad_examples.json").read_text())
        assert (bad["split"], bad["row"], bad["found"]) == ("train", 40, "nan")
    skipping = records["skip"]
    assert [m.step for m in skipping.measurements] == [4, 8, 16]
    assert skipping.measurements[-1].skipped == 1
    # The same again, without a search.
    again = [measurement.losses for measurement in distill(skipping.spec)]
    assert again == [measurement.losses for measurement in skipping.measurements]


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
        # Not the one that is only started to report the end: the next trial has it, too.
        if trial.config["name"] == "0000" and result["state"] == "running":
            os.kill(result["pid"], signal.SIGKILL)

    monkeypatch.setattr(Follower, "on_trial_result", kill_the_first)
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    assert [record.state for record in run.read_trials()] == ["failed", "complete"]
    assert result.failures == {"0000": "its worker was lost 1 time(s)"}
    assert (run.trial("0000") / "error.txt").exists()
    assert not [*(run.path / "trials").glob("*/checkpoint-*")]
