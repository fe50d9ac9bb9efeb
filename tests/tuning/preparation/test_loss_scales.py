"""Loss scales of a search: measured once, before its trials, and read when it is resumed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from lkd_tune.config.read_space import load_space
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.summary import term_strengths
from lkd_tune.tuning.preparation.loss_scales import ensure_loss_scales
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.tiny import make_space

LOSSES = {
    "balance": "gradient",
    "wr_pair": {"loguniform": [0.1, 10]},
    "wr_triple": 0,
    "ltr_pair": 0,
    "ltr_triple": {"choice": [0, {"weight": {"loguniform": [0.1, 10]}}]},
    "logits": {"temperature": {"uniform": [1, 4]}},
}


def test_scales_are_measured_once_and_reported(tmp_path):
    # One depth has no layer relations, and the other is the teacher's.
    space = make_space(tmp_path, losses=LOSSES, student={"depth": {"choice": [1, 4]}})
    run, calls, told = RunFolder(tmp_path / "run"), [], []
    update_manifest(run, teacher={"layers": 4})

    def measure(part, function, *arguments):
        calls.append(part)
        return function(1, *arguments)

    def session_of(space):
        view = SimpleNamespace(phase=told.append, note=told.append)
        return SimpleNamespace(
            space=space, run=run, view=view, cache=str(tmp_path / "cache"), cwd=str(tmp_path)
        )

    worker, teacher = SimpleNamespace(run=measure), str(tmp_path / "teacher")
    ensure_loss_scales(session_of(space), worker, teacher)
    assert sorted(space.loss_scales.terms) == ["logits", "ltr_triple", "wr_pair"]
    assert told[0] == "measuring the gradient of each loss term"
    assert told[1].startswith("losses.balance: gradient multiplies the weights: ")
    assert "logits 1 to 16" in told[1]

    resumed = load_space(tmp_path / "space.yaml")
    ensure_loss_scales(session_of(resumed), worker, teacher)
    assert calls == ["loss_scales"]
    assert resumed.loss_scales == space.loss_scales


def test_nothing_is_measured_without_balance(tmp_path):
    space = make_space(tmp_path, losses={**LOSSES, "balance": "none"})
    run = RunFolder(tmp_path / "run")
    update_manifest(run, teacher={"layers": 4})
    ensure_loss_scales(SimpleNamespace(space=space, run=run, view=None), None, "teacher")
    assert space.loss_scales is None


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_all_trials_of_a_search_have_the_scales_that_were_measured_before_them(tmp_path):
    search = {"trials": 2, "recipes": [], "baseline": True}
    space = make_space(tmp_path, losses=LOSSES, search=search)
    run = RunFolder(tmp_path / "run")
    assert not run_search(space, run).failures
    before = run.read_manifest()
    assert before["costs"]["loss_scales"]["wall_s"] > 0

    result = resume_search(run, overrides=["search.trials=4"])
    assert result.trials == 4
    manifest = run.read_manifest()
    assert manifest["loss_scales"] == before["loss_scales"]
    assert manifest["costs"]["loss_scales"] == before["costs"]["loss_scales"]
    measured = manifest["loss_scales"]["terms"]["wr_pair"][0]["strength"]
    for record in run.read_trials():
        if not record.spec.losses.needs_teacher:  # the comparison, of a single term
            assert record.spec.effective_scales == {}
            continue
        scales = record.spec.effective_scales
        assert scales["wr_pair"] == pytest.approx(1 / measured)
        assert [*scales] == [name for name, _ in record.spec.losses.active()]
        last = record.measurements[-1].losses
        expected = sum(
            term.weight * scales[name] * last[name] for name, term in record.spec.losses.active()
        )
        assert last["total"] == pytest.approx(expected)
    names = [name for name, *_ in term_strengths(read_leaderboard(run))]
    assert "logits (temperature 2.5)" in names
    student = json.loads((run.student(result.best) / "student.json").read_text())
    assert student["spec"]["loss_scales"]
