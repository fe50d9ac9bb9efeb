"""The searcher beside Ray's own OptunaSearch: the same where both can, better where it can't."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from lkd_tune.config.read_space import build_space
from lkd_tune.config.source import parse_source
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import Start
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.study.searcher import StudySearcher
from tests.support.studies import open_study
from tests.tuning.study.test_searcher import drawn, result

TEXT = """
task: {name: tiny, train: train.csv, dev: dev.csv}
teacher: somewhere
student: {depth: {int: [1, 3]}}
losses:
  wr_pair: {loguniform: [0.1, 100]}
  wr_triple: {choice: [0, {weight: {loguniform: [1, 1000]}}]}
search: {trials: 3, sampler: random}
"""
OFF = {"losses.wr_triple": "0"}
ON = {"losses.wr_triple": '{"weight": "numbers 1 to 1000, log scale"}'}
POINTS = [
    {"student.depth": 1, "losses.wr_pair": 0.5, **OFF},
    {"student.depth": 2, "losses.wr_pair": 3.0, **ON, "losses.wr_triple.weight": 7.0},
    {"student.depth": 3, "losses.wr_pair": 1.5, **OFF},
]


class Drawing:
    def __init__(self, space: SearchSpace):
        self.space = space

    def __call__(self, trial: Any) -> None:
        self.space.draw(trial, teacher="somewhere", teacher_layers=6, seed=0)


@pytest.fixture
def both(tmp_path):
    """Both searchers over one space, with the same points to begin with."""
    space = build_space(parse_source(TEXT, "space.yaml"))
    run = RunFolder(tmp_path)
    ours = StudySearcher(
        space, run, teacher="somewhere", teacher_layers=6, common={},
        starts=[Start("given", point, {}) for point in POINTS],
    )  # fmt: skip
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "theirs.journal")))
    theirs = OptunaSearch(
        Drawing(space), metric="score", mode="max", sampler=RandomSampler(seed=0),
        points_to_evaluate=POINTS, storage=journal, study_name="theirs",
    )  # fmt: skip
    return ours, theirs, lambda: (open_study(run.study).trials, theirs._ot_study.trials)


def test_complete_and_failed_trials_are_passed_on_alike(both):
    ours, theirs, studies = both
    for i in range(3):
        specs = drawn(ours.suggest(f"t{i}"))[1]
        config = theirs.suggest(f"t{i}")
        assert (
            config["losses.wr_pair"] == specs.losses.wr_pair.weight == POINTS[i]["losses.wr_pair"]
        )
        for search in (ours, theirs):
            search.on_trial_result(f"t{i}", {**result(2, 0.1 * i), "training_iteration": 2})
            if i < 2:
                last = {**result(8, 0.2 * i, "complete"), "training_iteration": 8}
                search.on_trial_complete(f"t{i}", last)
            else:
                search.on_trial_complete(f"t{i}", error=True)
    for own, other in zip(*studies(), strict=True):
        assert own.state == other.state
        assert own.params == other.params
        assert own.distributions == other.distributions
        assert own.value == other.value
    assert [trial.state for trial in studies()[0]] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.FAIL,
    ]


def test_a_trial_stopped_early_is_complete_to_the_one_and_pruned_to_the_other(both):
    ours, theirs, studies = both
    for search in (ours, theirs):
        search.suggest("t0")
        search.on_trial_complete("t0", {**result(2, 0.4), "training_iteration": 2})
    ((own, *_), (other, *_)) = studies()
    assert (own.state, own.value, own.last_step) == (TrialState.PRUNED, 0.4, 2)
    # Its score at a quarter of the steps counts as if it had come to its end.
    assert (other.state, other.value) == (TrialState.COMPLETE, 0.4)
