"""A real search, the ablation of its winner, and the report about both."""

from __future__ import annotations

import json
import shutil

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.report.page import write_report
from lkd_tune.results.study import read_study
from lkd_tune.tuning.ablation import ablate
from lkd_tune.tuning.tuner import resume_search
from tests.support.finished_run import TRIALS
from tests.support.html_page import Page
from tests.support.run_folder import HandMade
from tests.support.tiny import LABELS

pytestmark = pytest.mark.usefixtures("two_cores")


@pytest.fixture(scope="module")
def run(finished_run, two_cores, tmp_path_factory):
    return RunFolder(
        shutil.copytree(finished_run.path, tmp_path_factory.mktemp("ablation") / "run")
    )


def ended(run):
    return {path: path.stat().st_mtime_ns for path in run.path.glob("trials/*/outcome.json")}


def test_each_term_is_taken_away_once(run):
    before, board = run.read_manifest(), read_leaderboard(run)
    trials = ended(run)
    best = board.best
    assert best is not None
    result = ablate(run, quiet=True)
    summary = json.loads(run.ablation.read_text("utf-8"))
    assert result.summary == summary
    assert not result.interrupted
    assert (summary["winner"], summary["metric"]) == (best.name, "accuracy")
    entries = {entry["removed"]: entry for entry in summary["entries"]}
    assert {*entries} == {None, "wr_pair", "logits"}
    assert summary["entries"][0]["removed"] is None
    assert entries[None]["scores"] == [best.score]
    for term in ("wr_pair", "logits"):
        record = run.read_trial(f"{best.name}-without-{term}")
        winner = run.read_trial(best.name).spec
        assert getattr(record.spec.losses, term).weight == 0
        assert record.spec.seed == winner.seed
        assert record.spec.model_copy(update={"losses": winner.losses}) == winner
        assert entries[term]["scores"] == [record.score]
        assert entries[term]["difference"] == pytest.approx(record.score - best.score)
    # The search itself is as it was.
    assert {path: at for path, at in ended(run).items() if path in trials} == trials
    assert read_leaderboard(run).rows == board.rows
    assert run.read_manifest()["finished"] == before["finished"]

    # Nothing is trained again, but for what is missing, as after a kill.
    now = ended(run)
    missing = run.trial(f"{best.name}-without-logits")
    shutil.rmtree(missing)
    run.ablation.unlink()
    assert ablate(run, quiet=True).summary == summary
    again = ended(run)
    assert [path.parent for path in now if again[path] != now[path]] == [missing]

    # Nor has a search that goes on anything to do with these trials.
    resume_search(run, quiet=True)
    assert ended(run) == again
    assert read_leaderboard(run).rows == board.rows


@pytest.mark.slow
def test_other_seeds(run):
    summary = ablate(run, seeds=2, quiet=True).summary
    assert summary is not None
    for entry in summary["entries"]:
        assert entry["seeds"] == [2, 3]  # the search's own is 1
        assert entry["low"] <= entry["mean"] <= entry["high"]
    assert run.trial(f"{summary['winner']}-without-logits-seed2").exists()


def test_the_page_of_a_real_run(run):
    if not run.ablation.exists():
        ablate(run, quiet=True)
    journal = run.study.read_bytes()
    page = Page(write_report(run))
    assert {"size", "speed", "learning", "losses", "parallel", "importance", "ablation"} <= {
        *page.plots
    }
    assert page.loads == []
    assert "without wr_pair" in page.text("ablation")
    assert "ray 2" in page.text("origin")
    assert "less computation" in page.text("answer")  # than the teacher
    assert run.study.read_bytes() == journal

    study = read_study(run, ["score"])
    assert len(study.trials) == TRIALS
    assert sum(study.importance["score"].values()) == pytest.approx(1)
    assert {p.label for p in study.parameters} >= {"wr_pair", "logits", "train.lr"}
    for parameter in study.parameters:
        assert all(0 <= parameter.position(value) <= 1 for value in parameter.values)


def test_a_journal_that_is_being_written_to(run, tmp_path):
    copy = RunFolder(tmp_path)
    copy.study.write_bytes(run.study.read_bytes() + b'{"op_code": 4, "wor')
    assert read_study(copy, ["score"]).trials == read_study(run, ["score"]).trials


def test_a_winner_with_one_term_can_not_be_ablated(tmp_path):
    with pytest.raises(SpecError, match="has no complete trial"):
        ablate(HandMade(tmp_path / "empty").run)
    made = HandMade(tmp_path / "labels")
    spec = made.add("0000", 0.5)
    losses = type(spec.losses).model_validate(LABELS)
    made.add("0000", 0.5, like=spec.model_copy(update={"losses": losses}))
    with pytest.raises(SpecError, match="has only one loss term"):
        ablate(made.run)
