"""Recipes in the study: trials whose losses replace those of the space."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.starts import recipe_starts
from lkd_tune.records.run import RunFolder
from lkd_tune.results.study import read_study
from lkd_tune.tuning.samplers.build import SAMPLERS, build_sampler
from lkd_tune.tuning.study.searcher import StudySearcher
from tests.support.studies import open_study
from tests.tuning.study.test_searcher import drawn, result, space

# Only CKD: labels and soft labels are no points of it.
SPACE = """
task: {name: tiny, train: train.csv, dev: dev.csv}
teacher: somewhere
student: {depth: {int: [1, 3]}}
layer_map: skip
losses:
  wr_pair: {loguniform: [0.1, 100]}
  ltr_pair: {uniform: [0, 10]}
train: {lr: {loguniform: [1.0e-4, 1.0e-2]}}
search: {trials: 16, seed: 3, sampler: %s}
"""
RECIPES = ("labels", "soft_labels", "ckd")


def searcher(folder: Path, sampler: str = "tpe") -> StudySearcher:
    own = space(SPACE % sampler)
    starts = recipe_starts(own, 6, RECIPES)
    return StudySearcher(
        own, RunFolder(folder), teacher="somewhere", teacher_layers=6, common={}, starts=starts
    )


def test_a_search_starts_with_recipes_that_its_space_lacks(tmp_path):
    search = searcher(tmp_path)
    for number, recipe in enumerate(RECIPES):
        name, spec = drawn(search.suggest(f"t{number}"))
        assert spec.losses == LossSettings(recipe=recipe)
        assert (spec.student.depth, spec.train.lr) == (3, pytest.approx(1e-3))
        assert RunFolder(tmp_path).read_trial(name).origin == f"recipe {recipe}"
    _, spec = drawn(search.suggest("t3"))
    assert spec.losses.recipe == "ckd"
    assert 0.1 <= spec.losses.wr_pair.weight != 1


def test_a_resumed_search_has_the_same_starts(tmp_path):
    whole = searcher(tmp_path / "whole")
    expected = [drawn(whole.suggest(f"t{i}")) for i in range(4)]
    got = [drawn(searcher(tmp_path / "cut").suggest("t0"))]
    for i in range(1, 4):
        cut = searcher(tmp_path / "cut")  # as after SIGKILL
        assert [drawn(cut.suggest(f"r{k}")) for k in range(i)] == got
        got.append(drawn(cut.suggest(f"t{i}")))
    assert got == expected


def test_a_start_that_was_interrupted_while_it_was_drawn_is_drawn_again(tmp_path):
    drawn(searcher(tmp_path).suggest("t0"))
    open_study(tmp_path / "study.journal").ask()  # soft_labels, without a name yet
    search = searcher(tmp_path)
    specs = [drawn(search.suggest(f"t{i}"))[1] for i in range(4)]
    assert [spec.losses for spec in specs[:3]] == [
        LossSettings(recipe=name) for name in ("labels", "ckd", "soft_labels")
    ]


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name
        for name in SAMPLERS
        if name != "grid"
    ],
)
def test_every_sampler_goes_on_after_recipes(tmp_path, sampler):
    search, specs = searcher(tmp_path, sampler), []
    for i in range(16):
        if i in (2, 9):
            search = searcher(tmp_path, sampler)  # resumed
        specs.append(drawn(search.suggest(f"t{i}"))[1])
        score = -abs(specs[-1].losses.wr_pair.weight - 3)
        search.on_trial_complete(f"t{i}", result(8, score, "complete"))
    assert len({spec.digest() for spec in specs}) == 16
    trials = open_study(tmp_path / "study.journal").trials
    assert {trial.state for trial in trials if "name" in trial.user_attrs} == {TrialState.COMPLETE}
    assert sum("losses.wr_pair" not in trial.params for trial in trials) == 2
    if sampler in ("gp", "cma", "nsga2", "nsga3"):  # they draw jointly what all trials have
        study = open_study(tmp_path / "study.journal")
        joint = build_sampler(space(SPACE % sampler).settings.search, 0)
        assert {"losses.wr_pair", "train.lr"} < {
            *joint.infer_relative_search_space(study, study.trials[-1])
        }


def test_recipes_do_not_hide_what_the_weights_are_worth(tmp_path):
    search = searcher(tmp_path)
    for i in range(16):
        _, spec = drawn(search.suggest(f"t{i}"))
        search.on_trial_complete(f"t{i}", result(8, spec.losses.wr_pair.weight, "complete"))
    summary = read_study(RunFolder(tmp_path), ["score"])
    assert len(summary.trials) == 14
    assert "wr_pair" in summary.importance["score"]
    assert "losses.wr_pair" in [parameter.name for parameter in summary.parameters]


def test_a_recipe_is_stored_with_its_trial(tmp_path):
    searcher(tmp_path)
    lines = (tmp_path / "study.journal").read_text().splitlines()
    stored = [json.loads(line).get("user_attrs", {}) for line in lines]
    assert [each["recipe"] for each in stored if "recipe" in each] == ["labels", "soft_labels"]
