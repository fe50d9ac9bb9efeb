"""The best students stay, whatever happens on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import outcome_of
from lkd_tune.tuning.best_students import add_test_metrics, keep_best


def finish(run: RunFolder, name: str, score: float, state: str = "complete") -> None:
    folder = TrialFolder(run.trial(name))
    with folder.new_student() as draft:
        (draft / "student.json").write_text(json.dumps({"name": name, "score": score}))
        (draft / "model.safetensors").write_bytes(b"weights")
    if state:
        folder.write_outcome(outcome_of(state, ResourceSettings(), 1.0))  # type: ignore[arg-type]


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
    finish(run, "0000", 0.9, state="")
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


def test_the_winner_notes_its_test_metrics(tmp_path):
    run = RunFolder(tmp_path)
    finish(run, "0000", 0.9)
    keep_best(run, 1)
    add_test_metrics(run, "0000", {"accuracy": 0.8})
    facts = json.loads((run.student("0000") / "student.json").read_text())
    assert facts == {"name": "0000", "score": 0.9, "test_metrics": {"accuracy": 0.8}}
    assert json.loads((run.trial("0000") / "test.json").read_text()) == {"accuracy": 0.8}
