"""Samplers that see only some of a study's trials."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from lkd_tune.config.starts import RECIPE_ATTRIBUTE


class StudySubset(Study):
    """A study that shows a sampler only some of its trials."""

    def __init__(self, study: Study, trials: list[FrozenTrial]):
        # Everything but the trials is the study's own.
        self.__dict__.update(study.__dict__)
        self._selected = trials

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._selected if states is None or trial.state in states]


class WithoutRecipes(BaseSampler):
    """A sampler that does not see the trials whose losses are a recipe's in place of the space's.

    These trials have no parameters for the losses. Optuna's Gaussian process, CMA-ES and NSGA model
    only the parameters that all trials have, so one such trial would leave all weights to chance.

    Args:
        sampler: The sampler that draws.
    """

    def __init__(self, sampler: BaseSampler):
        self._sampler = sampler

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns the parameters to draw jointly."""
        return self._sampler.infer_relative_search_space(_without_recipes(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns values of parameters that are drawn jointly."""
        return self._sampler.sample_relative(_without_recipes(study), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns the value of one parameter that is drawn independently."""
        subset = _without_recipes(study)
        return self._sampler.sample_independent(subset, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Called before the first draw of a trial."""
        self._sampler.before_trial(_without_recipes(study), trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Called when a trial has ended."""
        self._sampler.after_trial(_without_recipes(study), trial, state, values)


def _without_recipes(study: Study) -> StudySubset:
    trials = study.get_trials(deepcopy=False)
    return StudySubset(study, [t for t in trials if RECIPE_ATTRIBUTE not in t.user_attrs])
