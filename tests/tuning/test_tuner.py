"""Searches of tiny models on a real Ray: a whole one, one that stops early, one that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space, load_space
from lkd_tune.config.source import parse_source
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import LABELS_ALONE
from lkd_tune.tuning.tuner import resume_search, run_search, write_space
from tests.support.studies import open_study
from tests.support.tiny import LABELS, make_space

pytestmark = pytest.mark.usefixtures("two_cores")


def test_a_whole_search(tmp_path, processes, capsys):
    space = make_space(
        tmp_path,
        splits=("train", "dev", "test"),
        losses={**LABELS, "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 0.9}},
        train={"lr": {"choice": [1e-9, 1e-2]}, "steps": 64},
        search={"trials": 7, "reduction_factor": 2, "baseline": True},
        keep={"top": 2},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run)

    records = {record.name: record for record in run.read_trials()}
    assert [*records] == [f"{i:04d}" for i in range(8)]
    states = {name: record.state for name, record in records.items()}
    assert set(states.values()) == {"complete", "stopped"}
    for record in records.values():
        steps = [measurement.step for measurement in record.measurements]
        assert steps == [16, 32, 64][: len(steps)]
        assert (steps[-1] == 64) == (record.state == "complete")
        assert record.outcome is not None
        assert record.outcome.cpu_s == record.outcome.wall_s > 0

    # The study agrees with the folders, and a stopped trial has the score it reached.
    for trial in open_study(run.study).trials:
        record = records[trial.user_attrs["name"]]
        expected = TrialState.COMPLETE if record.state == "complete" else TrialState.PRUNED
        assert (trial.state, trial.value) == (expected, record.score)
        assert list(trial.intermediate_values) == [m.step for m in record.measurements]

    # The two best are kept and nothing else: no other student, no checkpoint.
    complete = [r for r in records.values() if r.state == "complete"]
    best = sorted(complete, key=lambda r: (-(r.score or 0), r.name))[:2]
    assert sorted(path.name for path in run.students.iterdir()) == sorted(r.name for r in best)
    assert not [*(run.path / "trials").glob("*/checkpoint-*")]
    assert not list((run.path / "trials").glob("*/student"))
    assert result.best == best[0].name
    facts = json.loads((run.student(result.best) / "student.json").read_text())
    assert facts["score"] == best[0].score
    assert facts["spec"] == json.loads(best[0].spec.to_json())
    assert set(facts["test_metrics"]) == set(facts["metrics"])
    assert (run.student(result.best) / "model.safetensors").exists()

    # The last trial is the winner's depth and start on the labels alone. It is not in the study.
    # Both learn the task, and of equal scores the earlier trial is the best.
    last = records["0007"]
    assert (last.origin, last.is_drawn, last.state) == (LABELS_ALONE, False, "complete")
    assert last.spec == best[0].spec.on_labels_alone()
    assert result.best != "0007"
    assert best[0].spec.losses.needs_teacher
    assert json.loads((run.trial("0007") / "test.json").read_text())["accuracy"] >= 0
    assert run.read_manifest()["baseline"] == "0007"

    # One process ran all trials one after the other.
    pids = set.union(*(processes[f"{i:04d}"] for i in range(7)))
    assert len(pids) == 1

    manifest = run.read_manifest()
    assert manifest["teacher"]["layers"] == 4
    assert set(manifest["teacher"]["dev"]) == set(facts["metrics"])
    assert manifest["seconds"] > 0
    assert manifest["finished"] is not None
    # What was done beside the trials is told with what it cost: all cores of the machine.
    assert [*manifest["costs"]] == ["teacher", "targets", "latencies", "test"]
    for cost in manifest["costs"].values():
        assert cost["cpu_s"] == 2 * cost["wall_s"] > 0
        assert cost["gpu_s"] == cost["energy_j"] == 0
    assert load_space(run.space).tree == space.tree

    # Students were timed before there was a trial, and by none of them.
    timed = max(path.stat().st_mtime_ns for path in run.latencies.iterdir())
    assert timed < min(path.stat().st_mtime_ns for path in run.path.glob("trials/*/spec.json"))
    times = {json.loads(path.read_text())["latency_ms"] for path in run.latencies.iterdir()}
    assert {record.size.latency_ms for record in records.values() if record.size} <= times

    shown = capsys.readouterr()
    assert "[7/7] trial 000" in shown.out
    assert "\n[1/1] trial 0007 (labels alone) complete accuracy" in shown.out
    assert "WARNING" not in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err

    # There is nothing left to do, and it is not done again.
    trials = open_study(run.study).trials
    again = resume_search(run, quiet=True)
    assert (again.best, again.trials) == (result.best, 7)
    assert open_study(run.study).trials == trials

    # More trials go on where it ended.
    more = resume_search(run, quiet=True, overrides=["search.trials=8", "search.baseline=false"])
    assert more.trials == 8
    assert run.read_trial("0008").is_drawn
    assert load_space(run.space).settings.search.trials == 8


def test_the_time_budget_ends_a_search(tmp_path):
    space = make_space(
        tmp_path,
        train={"steps": 1500, "evaluations": 9},
        search={"trials": 3, "time_budget": 0.1, "scheduler": "none"},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    assert result.out_of_time
    assert not result.interrupted
    assert result.trials < 3
    assert 6 <= run.read_manifest()["seconds"] < 12
    assert all(record.state != "failed" for record in run.read_trials())


@pytest.mark.slow
def test_confirmation_and_baseline_run_after_the_time_budget(tmp_path):
    run = RunFolder(tmp_path / "run")
    run_search(make_space(tmp_path, train={"steps": 8}, search={"trials": 1}), run, quiet=True)
    more = ["search.trials=1000", "search.time_budget=0.001"]  # which is used up already
    after = ["confirm={top: 1, seeds: 2}", "search.baseline=true"]
    result = resume_search(run, quiet=True, overrides=[*more, *after])
    assert result.out_of_time
    assert result.trials < 5
    seeds = {entry["trial"]: len(entry["scores"]) for entry in run.read_confirmation()}
    assert seeds == {"0000": 2, run.read_manifest()["baseline"]: 2}
    assert run.read_manifest()["finished"] is not None


@pytest.mark.slow
def test_a_search_stops_before_its_disk_is_full_and_resumes_with_more_space(tmp_path):
    space = make_space(tmp_path, search={"trials": 2, "min_free_gb": 1e9})
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    assert result.disk_full is not None
    assert result.disk_full.startswith(f"the disk of {run.path} on ")
    assert result.disk_full.endswith(" GB free, less than search.min_free_gb (1e+09)")
    assert run.read_manifest()["finished"] is None
    more = resume_search(run, quiet=True, overrides=["search.min_free_gb=0"])
    assert not more.disk_full
    assert more.trials == 2
    assert all(record.state != "failed" for record in run.read_trials())


@pytest.mark.slow
def test_a_teacher_is_trained_first(tmp_path):
    training = {
        "architecture": {"layers": 2, "hidden_size": 32, "heads": 2},
        "steps": 100,
        "lr": 1e-2,
        "batch_size": 16,
    }
    space = make_space(
        tmp_path, teacher={"train": training}, student={"depth": 1}, search={"trials": 1}
    )
    run = RunFolder(tmp_path / "run")
    run_search(space, run, quiet=True)
    teacher = run.read_manifest()["teacher"]
    assert teacher["layers"] == 2
    assert Path(teacher["model"], "model.safetensors").exists()
    assert teacher["dev"]["accuracy"] > 0.9


REFUSED = {
    "resources.cpus=64": "asks for 1 worker(s) with 64 CPU(s) and 0 GPU(s) each, the cluster's "
    "node(s) have 2 CPU(s) and 0 GPU(s)",
    "resources.gpus=1": "asks for 1 worker(s) with 1 CPU(s) and 1 GPU(s) each",
    "resources.workers=4": "asks for 4 worker(s)",
    "student.depth=9": "depth 9 is above the teacher's 4 layers",
    "task.columns.text=words": "has no column 'words'",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_can_not_be_run_is_refused_before_anything_is_written(tmp_path, override):
    make_space(tmp_path)
    space = load_space(tmp_path / "space.yaml", [override])
    run = RunFolder(tmp_path / "run")
    with pytest.raises(SpecError) as caught:
        run_search(space, run, quiet=True)
    assert REFUSED[override] in str(caught.value)
    assert not run.manifest.exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    space = make_space(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(SpecError, match="holds a search already; resume it"):
        run_search(space, RunFolder(tmp_path / "run"), quiet=True)


def test_only_what_keeps_trials_comparable_may_change_in_a_run(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(
        SpecError,
        match=r"--set train.lr=1: can't change in a resumed run; these can: search.trials",
    ):
        resume_search(RunFolder(tmp_path), overrides=["train.lr=1"])


def test_a_space_with_awkward_texts_survives_the_copy_in_the_run(tmp_path):
    text = (
        "task: {name: 'yes', train: a.csv, dev: b.csv, labels: ['5e-5', 'no', '1e3', 'ä: b']}\n"
        "teacher: somewhere\ntrain: {lr: {loguniform: [1e-5, 5e-4]}}\n"
    )
    space = build_space(parse_source(text, "space.yaml"))
    write_space(RunFolder(tmp_path), space)
    again = load_space(RunFolder(tmp_path).space)
    assert again.tree == space.tree
    assert again.settings == space.settings


def test_a_teacher_at_chance_stops_the_search_before_the_first_trial(tmp_path, two_cores):
    space = make_space(tmp_path, search={"trials": 1}, student={"depth": 1})
    tree = {**space.source.tree, "teacher": space.source.tree["teacher"]["model"]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(tree))
    # Without a head's weights, each answer is the same.
    file = tmp_path / "teacher" / "model.safetensors"
    weights = load_file(file)
    weights["classifier.weight"].zero_()
    save_file(weights, file, {"format": "pt"})
    run = RunFolder(tmp_path / "run")
    with pytest.raises(SpecError, match=r"space\.yaml:\d+ teacher: the teacher's accuracy on dev"):
        run_search(load_space(tmp_path / "space.yaml"), run, quiet=True)
    assert run.read_trials() == []
    result = resume_search(run, quiet=True, overrides=["teacher.allow_chance_level=true"])
    assert (result.trials, result.failures) == (1, {})
