"""The winner's student on the labels alone: a trial like the others, which may be the best."""

from __future__ import annotations

import json

import pytest

from lkd_tune.cli.search import show_result
from lkd_tune.config.settings.losses import LABELS_ONLY
from lkd_tune.export.students import export_students
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import LABELS_ALONE
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.tuning.execution.callback import SearchCallback
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.studies import open_study
from tests.support.tiny import LABELS, make_space

pytestmark = pytest.mark.usefixtures("two_cores")

# Relations with a teacher of random weights, so strong that nothing of the labels is learned.
ABSURD = {**LABELS, "logits": {"weight": 1e-6}, "wr_pair": {"loguniform": [1e5, 1e6]}}
SPACE = {"losses": ABSURD, "student": {"depth": 2}, "train": {"steps": 64, "lr": 1e-2}}


def ended(run):
    return {path: path.stat().st_mtime_ns for path in run.path.glob("trials/*/outcome.json")}


def test_a_student_on_the_labels_alone_that_wins_is_handed_over(tmp_path, capsys):
    space = make_space(
        tmp_path,
        splits=("train", "dev", "test"),
        search={"trials": 1, "baseline": True},
        keep={"top": 1},
        **SPACE,
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run)
    distilled, labels = run.read_trials()
    assert (distilled.name, labels.name) == ("0000", "0001")
    assert (labels.spec.losses, labels.spec.seed) == (LABELS_ONLY, distilled.spec.seed)
    assert labels.origin == LABELS_ALONE
    assert labels.score > distilled.score
    assert (result.best, result.trials) == ("0001", 1)

    # It is kept, scored on test, exported as 1, and told.
    assert [path.name for path in run.students.iterdir()] == ["0001"]
    student = json.loads((run.student("0001") / "student.json").read_text())
    assert student["test_metrics"] == TrialFolder(run.trial("0001")).read_test_metrics()
    capsys.readouterr()
    assert show_result(result) == 0
    shown = capsys.readouterr().out
    said = "The best student was trained on the labels alone: no distilled student was better here"
    assert said in shown
    assert ["1", "0001", "labels"] in [line.split()[:3] for line in shown.splitlines()]
    assert "trials: 1 complete" in shown
    (folder,) = export_students(run, 1, tmp_path / "out")
    weights = (run.student("0001") / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights
    assert said in (folder / "README.md").read_text()
    facts = json.loads(run.leaderboard_json.read_text())
    assert said in facts["verdict"]
    assert [(row["name"], row["distilled"]) for row in facts["rows"]] == [
        ("0001", False), ("0000", True),
    ]  # fmt: skip

    # Resumed with nothing to do, it stays so.
    before = ended(run)
    assert resume_search(run, quiet=True).best == "0001"
    assert ended(run) == before

    # The outcome of a drawn trial is in the study, too; another trial is trained again.
    for name in ("0000", "0001"):
        (run.trial(name) / "outcome.json").write_text('{"state":')
    assert resume_search(run).best == "0001"
    said = capsys.readouterr().out
    assert "trial 0000: its outcome.json is damaged; the study says complete" in said
    assert "trial 0001 is trained again: its outcome.json is damaged" in said
    assert "trial 0001 (labels alone) complete" in said
    scores = {record.name: (record.state, record.score) for record in run.read_trials()}
    assert scores == {"0000": ("complete", distilled.score), "0001": ("complete", labels.score)}
    before = ended(run)
    assert run.read_manifest()["paused_s"] > 0

    # More trials are drawn; the number of the comparison is taken.
    more = resume_search(run, quiet=True, overrides=["search.trials=2"])
    assert (more.best, more.trials) == ("0001", 2)
    assert {path: at for path, at in ended(run).items() if path in before} == before
    assert [record.name for record in run.read_trials()] == ["0000", "0001", "0002"]
    assert [trial.user_attrs["name"] for trial in open_study(run.study).trials] == ["0000", "0002"]
    assert len(run.read_comparisons()) == 1


@pytest.mark.slow
def test_a_comparison_that_is_interrupted_at_each_point_loses_nothing(tmp_path, monkeypatch):
    space = make_space(
        tmp_path,
        search={"trials": 2, "baseline": True, "scheduler": "none"},
        confirm={"top": 1, "seeds": 2},
        keep={"top": 1},
        **SPACE,
    )
    run = RunFolder(tmp_path / "run")
    measured, completed = SearchCallback.on_trial_result, SearchCallback.on_trial_complete

    def stop_while_it_trains(self, iteration, trials, trial, result, **info):
        measured(self, iteration, trials, trial, result, **info)
        if trial.config["name"] == "0002":
            self._stop.interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(SearchCallback, "on_trial_result", stop_while_it_trains)
        assert run_search(space, run, quiet=True).interrupted
    folder = TrialFolder(run.trial("0002"))
    (winner,) = [entry["trial"] for entry in run.read_confirmation()]
    assert (folder.read_outcome(), folder.read_checkpoint().step) == (None, 16)
    assert read_leaderboard(run).baseline is None

    def stop_before_it_is_kept(self, iteration, trials, trial, **info):
        self._keep = lambda name: None
        completed(self, iteration, trials, trial, **info)
        self._stop.interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(SearchCallback, "on_trial_complete", stop_before_it_is_kept)
        assert resume_search(run, quiet=True).interrupted
    assert folder.read_outcome().state == "complete"
    assert not run.trial("0002-seed1").exists()
    # Its own seed's score is the better one; what counts is the mean, which is not there yet.
    assert read_leaderboard(run).best.name == winner
    assert run.student(winner).exists()

    assert resume_search(run, quiet=True).best == "0002"
    assert [m.step for m in run.read_trial("0002").measurements] == [16, 32, 64]
    assert {entry["trial"] for entry in run.read_confirmation()} == {winner, "0002"}
    assert sorted(path.name for path in run.students.iterdir()) == sorted([winner, "0002"])
    assert not [*run.path.glob("trials/*/student")]
    before, board = ended(run), read_leaderboard(run)
    resume_search(run, quiet=True)
    assert (ended(run), read_leaderboard(run).rows) == (before, board.rows)


@pytest.mark.slow
def test_a_trial_that_is_its_winner_on_the_labels_alone_is_not_trained_again(tmp_path):
    space = make_space(
        tmp_path,
        losses={**LABELS, "logits": {"weight": 1, "alpha": {"choice": [0.9, 1]}}},
        student={"depth": 1},
        train={"steps": 64, "lr": 1e-2},
        search={"trials": 2, "baseline": True, "scheduler": "none"},
    )
    run = RunFolder(tmp_path / "run")
    run_search(space, run, quiet=True)
    records = {record.spec.losses.needs_teacher: record for record in run.read_trials()}
    assert len(records) == len(run.read_trials()) == 2
    assert run.read_manifest()["baseline"] == records[False].name
