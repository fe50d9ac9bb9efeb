"""Trials that fail, and processes that die: on a real Ray, with tiny models."""

from __future__ import annotations

import json

import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file

from lkd_tune.distillation.run import distill
from lkd_tune.models.loading import load_tokenizer
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.tuner import run_search
from tests.support.killing import killing
from tests.support.studies import open_study
from tests.support.tiny import LABELS, make_space

torch.set_num_threads(1)  # as the trials have, for results that are equal

pytestmark = pytest.mark.usefixtures("two_cores")


def test_a_trial_that_fails_ends_and_the_search_continues(tmp_path, processes):
    space = make_space(
        tmp_path,
        layer_map="skip",
        student={"depth": 2},
        losses=LABELS,
        train={"lr": {"choice": [1e-3, 1e30]}, "steps": 4},
        search={"trials": 2, "scheduler": "none"},
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
    trials = open_study(run.study).trials
    told = {t.user_attrs["name"]: t for t in trials if "name" in t.user_attrs}
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
        search={"trials": 2, "scheduler": "none"},
    )
    data = tmp_path / "data" / "train.csv"
    lines = data.read_text().splitlines()
    lines[40] = f"[MASK] {lines[40]}"
    data.write_text("\n".join(lines) + "\n")
    teacher = tmp_path / "teacher" / "model.safetensors"
    weights = load_file(teacher)
    mask = load_tokenizer(str(teacher.parent)).mask_token_id
    weights["bert.embeddings.word_embeddings.weight"][mask] = 3e38  # overflows
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


@pytest.mark.slow
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
    assert len([*(tmp_path / "run" / "trials").iterdir()]) == 2


def test_a_trial_that_is_killed_in_a_step_loses_no_more_than_what_came_after_its_checkpoint(
    tmp_path, processes
):
    space = make_space(
        tmp_path,
        student={"depth": 2},
        train={"steps": 800, "evaluations": 4},
        search={"trials": 1, "max_failures": 1},
    )
    run = RunFolder(tmp_path / "run")
    with killing(run, "0000") as kill:
        run_search(space, run, quiet=True)
    (record,) = run.read_trials()
    assert record.state == "complete"
    # It was killed on its way to the next measurement, and another process went on.
    assert kill.measured == [100]
    assert len({kill.pid} | processes["0000"]) == 2
    # Each step was measured once: nothing that a checkpoint held was done again.
    lines = (run.trial("0000") / "measurements.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [100, 200, 400, 800]
    (trial,) = open_study(run.study).trials
    assert trial.state == TrialState.COMPLETE
    assert trial.intermediate_values.keys() == {100, 200, 400, 800}


@pytest.mark.slow
def test_a_trial_that_loses_its_process_too_often_has_failed(tmp_path):
    space = make_space(
        tmp_path,
        student={"depth": 2},
        train={"steps": 800, "evaluations": 2},
        search={"trials": 2, "max_failures": 0},
    )
    run = RunFolder(tmp_path / "run")
    with killing(run, "0000") as kill:
        result = run_search(space, run, quiet=True)
    assert kill.measured == [400]
    assert [record.state for record in run.read_trials()] == ["failed", "complete"]
    assert result.failures == {"0000": "its worker was lost 1 time(s)"}
    assert (run.trial("0000") / "error.txt").exists()
    assert not [*(run.path / "trials").glob("*/checkpoint-*")]
    states = [trial.state for trial in open_study(run.study).trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]
