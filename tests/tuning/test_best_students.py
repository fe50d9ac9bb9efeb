"""The best students are kept, also after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.records.measurement import ModelSize
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import LABELS_ALONE, Ending, outcome_of
from lkd_tune.tuning.best_students import add_test_metrics, keep_best

OBJECTIVES = ["score", "parameters"]


def finish(
    run: RunFolder,
    name: str,
    score: float,
    state: Ending | None = "complete",
    parameters: int | None = None,
) -> None:
    """Writes a trial's student, and its outcome unless `state` is None."""
    folder = TrialFolder(run.trial(name))
    student: dict[str, Any] = {"name": name, "score": score}
    if parameters is not None:
        size = ModelSize(parameters=parameters, flops=10, disk_mb=1.0)
        student["size"] = size.model_dump()
    with folder.new_student() as draft:
        (draft / "student.json").write_text(json.dumps(student))
        (draft / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        folder.write_outcome(outcome_of(state, ResourceSettings(), 1.0))


def kept(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.students.iterdir())


def left(run: RunFolder) -> list[Path]:
    return sorted((run.path / "trials").glob("*/*student*"))


def test_the_best_are_kept_and_the_others_removed(tmp_path):
    run = RunFolder(tmp_path)
    for i, score in enumerate([0.3, 0.9, 0.1, 0.5, 0.7]):
        finish(run, f"{i:04d}", score)
        keep_best(run, 2)
    assert keep_best(run, 2) == ["0001", "0004"]
    assert kept(run) == ["0001", "0004"]
    assert left(run) == []
    assert (run.student("0001") / "model.safetensors").read_bytes() == b"weights"


def test_of_equal_scores_the_earlier_is_kept(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("0002", "0000", "0001"):
        finish(run, name, 0.5)
    assert keep_best(run, 2) == ["0000", "0001"]


def test_only_finished_trials_are_kept(tmp_path):
    run = RunFolder(tmp_path)
    finish(run, "0000", 0.9, state=None)
    finish(run, "0001", 0.5)
    assert keep_best(run, 2) == ["0001"]
    # Its outcome was about to be written; the student is still there for then.
    assert TrialFolder(run.trial("0000")).student.exists()


@pytest.mark.parametrize("at", ["move", "removal", "draft"])
def test_a_crash_leaves_nothing_wrong(tmp_path, at):
    run = RunFolder(tmp_path)
    finish(run, "0000", 0.9)
    finish(run, "0001", 0.5)
    keep_best(run, 2)
    if at == "move":  # the better one has come in, the worse one is not yet out
        finish(run, "0002", 0.7)
        TrialFolder(run.trial("0002")).student.rename(run.student("0002"))
    elif at == "removal":
        run.student("0001").rename(run.students / ".removed-0001")
        finish(run, "0002", 0.7)
    else:
        finish(run, "0002", 0.7)
        (run.trial("0003") / ".student").mkdir(parents=True)
    assert keep_best(run, 2) == ["0000", "0002"]
    assert kept(run) == ["0000", "0002"]


def test_the_winner_gets_its_test_metrics(tmp_path):
    run = RunFolder(tmp_path)
    finish(run, "0000", 0.9)
    keep_best(run, 1)
    add_test_metrics(run, "0000", {"accuracy": 0.8})
    facts = json.loads((run.student("0000") / "student.json").read_text())
    assert facts == {"name": "0000", "score": 0.9, "test_metrics": {"accuracy": 0.8}}
    assert json.loads((run.trial("0000") / "test.json").read_text()) == {"accuracy": 0.8}


def test_the_front_is_kept_and_its_knee_comes_first(tmp_path):
    run = RunFolder(tmp_path)
    students = [(0.9, 1000), (0.5, 100), (0.85, 300), (0.8, 900), (0.4, 100), (0.6, 250)]
    for i, (score, parameters) in enumerate(students):
        finish(run, f"{i:04d}", score, parameters=parameters)
        keep_best(run, 3, OBJECTIVES)
    assert keep_best(run, 3, OBJECTIVES)[0] == "0002"
    assert sorted(path.name for path in run.students.iterdir()) == ["0000", "0001", "0002"]


def test_of_a_large_front_those_are_kept_that_add_most(tmp_path):
    run = RunFolder(tmp_path)
    for i, (score, parameters) in enumerate([(0.9, 1000), (0.899, 999), (0.5, 100), (0.8, 400)]):
        finish(run, f"{i:04d}", score, parameters=parameters)
    best = keep_best(run, 3, OBJECTIVES)
    assert best[0] == "0003"
    assert "0002" in best
    assert len({"0000", "0001"} & {*best}) == 1


@pytest.mark.parametrize("objectives", [["score"], OBJECTIVES])
def test_a_mean_decides_on_protected_students_and_not_their_own_seed(tmp_path, objectives):
    run = RunFolder(tmp_path)
    finish(run, "0000", 0.9, parameters=100)
    finish(run, "0001", 0.8, parameters=90)
    finish(run, "0002", 0.7, parameters=90)
    protected = {"0000", "0003", "0004"}
    assert keep_best(run, 1, objectives, protected=protected) == ["0000"]
    for name, score in (("0003", 0.95), ("0004", 0.1)):
        TrialFolder(run.trial(name)).write_origin(LABELS_ALONE)
        finish(run, name, score, parameters=100)
        # Neither is removed, and neither takes the place of one that was drawn.
        assert keep_best(run, 1, objectives, protected=protected, ended=name) == ["0000"]
    assert kept(run) == ["0000", "0003", "0004"]
    # Ranked by its own seed, a comparison is one of all.
    assert keep_best(run, 1, objectives) == ["0003"]
    assert kept(run) == ["0003"]
