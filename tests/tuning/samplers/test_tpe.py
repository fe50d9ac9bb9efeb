"""TPE over a subset of a study: the draws of Optuna's TPE at first, its good trials later."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import TrialState

from lkd_tune.tuning.samplers import tpe
from lkd_tune.tuning.samplers.tpe import BoundedTPE, select_trials

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

OPTIONS = {"multivariate": True, "group": True, "constant_liar": True}


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("x", -5, 5)
    if trial.suggest_categorical("has_y", [False, True]):
        trial.suggest_float("y", 1e-3, 1e3, log=True)
    return trial


def grown(trials: int, running: int = 0, directions: tuple[str, ...] = ("maximize",)):
    """Returns a study of random trials: half stopped early, some above a limit, some running."""
    study = optuna.create_study(directions=directions, sampler=RandomSampler(seed=1))
    for number in range(trials):
        trial = ask(study)
        score = -(trial.params["x"] ** 2) + (trial.params["has_y"])
        if number % 7 == 0:
            trial.set_constraint("size", 1.0)
        if number % 2:
            if len(directions) == 1:
                trial.report(score, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [score, -score][: len(directions)])
    for _ in range(running):
        ask(study)
    return study


@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
def test_a_small_study_is_sampled_as_by_optuna(directions):
    drawn = []
    for sampler in (TPESampler, BoundedTPE):
        study = grown(60, running=3, directions=directions)
        study.sampler = sampler(seed=5, **OPTIONS)
        drawn.append([ask(study).params for _ in range(3)])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("running", [0, 4, 400])
def test_the_good_trials_are_the_same_and_those_that_run_are_there(running):
    study = grown(400, running)
    trials = study.get_trials(deepcopy=False)
    ended = [trial for trial in trials if trial.state != TrialState.RUNNING]
    selected = select_trials(study, trials, max_trials=300)
    assert len(selected) == 300
    assert selected == sorted(selected, key=lambda trial: trial.number)
    assert sum(trial.state == TrialState.RUNNING for trial in selected) == min(running, 150)
    part = [trial for trial in selected if trial.state != TrialState.RUNNING]
    for good, good_of_part in zip(_split_trials(study, ended, 25), [part], strict=False):
        assert {trial.number for trial in good} <= {trial.number for trial in good_of_part}


def test_it_still_finds_the_best_with_a_subset(monkeypatch):
    monkeypatch.setattr(tpe.select_trials, "__defaults__", (60,))
    study = grown(200, running=5)
    study.sampler = BoundedTPE(seed=0, warn_independent_sampling=False, **OPTIONS)
    found = []
    for _ in range(20):
        trial = ask(study)
        found.append(abs(trial.params["x"]))
        study.tell(trial, state=TrialState.FAIL)
    assert sorted(found)[10] < 1.5  # 2.5 by chance
