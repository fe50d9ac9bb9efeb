"""Optuna's TPE with a model of a bounded number of trials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

from lkd_tune.tuning.samplers.subset import StudySubset

# The model has at most this many trials. It bounds the time of a draw, however long the study is.
MAX_TRIALS = 500
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_MODELLED = (*_ENDED, TrialState.RUNNING)


class BoundedTPE(TPESampler):
    """TPE over the best trials and a sample of the others.

    TPE compares a density of the good trials with one of all others. Both have as many kernels as
    there are trials, so the time of a draw grows with the study: at 10,000 trials it takes
    seconds, while all free workers wait. But with one objective at most 25 trials are good, and a
    few hundred of the others describe their density well enough. Running trials come first (the
    newest, if they are more than half), because they keep simultaneous draws apart. Of the rest
    every k-th is used. Up to `MAX_TRIALS` trials it is Optuna's TPE.
    """

    _subset: tuple[int, StudySubset] | None = None  # by the number of the trial it is for

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the parameters to draw jointly; one trial for each set of parameters suffices."""
        kinds: dict[frozenset[str], FrozenTrial] = {}
        for ended in study.get_trials(deepcopy=False, states=_ENDED):
            kinds.setdefault(frozenset(ended.distributions), ended)
        subset = StudySubset(study, [*kinds.values()])
        return super().infer_relative_search_space(subset, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns values of parameters that are drawn jointly."""
        return super().sample_relative(self._modelled(study, trial), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns the value of one parameter that is drawn independently."""
        subset = self._modelled(study, trial)
        return super().sample_independent(subset, trial, param_name, param_distribution)

    def _modelled(self, study: Study, trial: FrozenTrial) -> StudySubset:
        if self._subset is None or self._subset[0] != trial.number:
            trials = study.get_trials(deepcopy=False, states=_MODELLED)
            others = [each for each in trials if each.number != trial.number]
            self._subset = trial.number, StudySubset(study, select_trials(study, others))
        return self._subset[1]


def select_trials(
    study: Study, trials: list[FrozenTrial], max_trials: int = MAX_TRIALS
) -> list[FrozenTrial]:
    """Returns at most `max_trials` trials by number: all good ones, and a sample of the others."""
    if len(trials) <= max_trials:
        return trials
    ended = [trial for trial in trials if trial.state != TrialState.RUNNING]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING][-max_trials // 2 :]
    # As many as TPE counts as good in a study of this size, so the good trials stay the same.
    share = math.ceil(0.1 * max_trials)
    good, rest = _split_trials(
        study, ended, min(share, 25) if len(study.directions) == 1 else share
    )
    places = min(len(rest), max_trials - len(good) - len(running))
    sampled = np.linspace(0, len(rest) - 1, places).round().astype(int)
    selected = [*good, *running, *(rest[i] for i in sampled)]
    return sorted(selected, key=lambda trial: trial.number)
