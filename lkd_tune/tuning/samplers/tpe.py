"""Optuna's TPE, whose model is made of a bounded number of trials."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

# A draw then takes about as long as with so many trials, however many there are.
MOST = 500
_KNOWN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class BoundedTPE(TPESampler):
    """TPE over the best trials and a sample of the others.

    TPE compares a density of the good trials with one of all others, and both have as many kernels
    as there are trials: a draw takes time in proportion to the study, seconds at 10,000 trials,
    while all free workers wait. But of one objective at most 25 trials are good ones, and the
    density of thousands of others is known well enough from some hundred of them. Those that run
    come first (the newest, if they are too many for a half), as they keep draws that are made at
    the same time apart; of the rest each k-th is taken. Up to `MOST` trials it is Optuna's TPE.
    """

    _part: tuple[int, _Part] | None = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the parameters to be drawn together: of all trials, one of each kind will do."""
        kinds: dict[frozenset[str], FrozenTrial] = {}
        for known in study.get_trials(deepcopy=False, states=_KNOWN[:2]):
            kinds.setdefault(frozenset(known.distributions), known)
        return super().infer_relative_search_space(_Part(study, [*kinds.values()]), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws parameters together."""
        return super().sample_relative(self._of(study, trial), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draws one parameter by itself."""
        part = self._of(study, trial)
        return super().sample_independent(part, trial, param_name, param_distribution)

    def _of(self, study: Study, trial: FrozenTrial) -> _Part:
        if self._part is None or self._part[0] != trial.number:
            known = study.get_trials(deepcopy=False, states=_KNOWN)
            others = [each for each in known if each.number != trial.number]
            self._part = trial.number, _Part(study, choose(study, others))
        return self._part[1]


def choose(study: Study, trials: list[FrozenTrial], most: int = MOST) -> list[FrozenTrial]:
    """Returns at most so many of a study's trials, by number: the good ones, and some others."""
    if len(trials) <= most:
        return trials
    ended = [trial for trial in trials if trial.state != TrialState.RUNNING]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING][-most // 2 :]
    # As many as TPE takes for good ones in a study of this size, which so are the same.
    share = math.ceil(0.1 * most)
    good, rest = _split_trials(
        study, ended, min(share, 25) if len(study.directions) == 1 else share
    )
    left = min(len(rest), most - len(good) - len(running))
    taken = np.linspace(0, len(rest) - 1, left).round().astype(int)
    chosen = [*good, *running, *(rest[i] for i in taken)]
    return sorted(chosen, key=lambda trial: trial.number)


class _Part(Study):
    """A study as a sampler sees it, of which only some trials are there."""

    def __init__(self, study: Study, trials: list[FrozenTrial]):
        # All but the trials is the study's own.
        self.__dict__.update(study.__dict__)
        self._chosen = trials

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._chosen if states is None or trial.state in states]
