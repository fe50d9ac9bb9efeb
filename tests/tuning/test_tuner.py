"""A whole search of tiny models on a real Ray, from its space to its winner."""

from __future__ import annotations

import json

import pytest
from optuna.trial import TrialState

from lkd_tune.config.space import load_space
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import BASELINE
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.studies import open_study
from tests.support.tiny import LABELS, make_space

pytestmark = pytest.mark.usefixtures("two_cores")


def test_a_whole_search(tmp_path, processes, capsys):
    space = make_space(
        tmp_path,
        splits=("train", "dev", "test"),
        losses={**LABELS, "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 1}},
        train={"lr": {"choice": [1e-9, 1e-2]}, "steps": 64},
        search={"trials": 7, "reduction_factor": 2, "baseline": True},
        keep={"top": 2},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run)

    records = {record.name: record for record in run.read_trials()}
    assert [*records] == [f"{i:04d}" for i in range(7)] + [BASELINE]
    states = {name: record.state for name, record in records.items()}
    assert set(states.values()) == {"complete", "stopped"}
    assert states[BASELINE] == "complete"
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
    complete = [r for r in records.values() if r.state == "complete" and r.name != BASELINE]
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

    # The baseline: the winner's depth and start, the labels alone.
    baseline = records[BASELINE].spec
    assert baseline.student == best[0].spec.student
    assert not baseline.losses.needs_teacher
    assert json.loads((run.trial(BASELINE) / "test.json").read_text())["accuracy"] >= 0

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
    assert load_space(run.space).settings.search.trials == 8
