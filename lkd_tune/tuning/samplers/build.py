"""The samplers by name: Optuna's own, a faster TPE, and one for layer maps.

To add one: an entry in `SAMPLERS`, and its name in `lkd_tune.config.settings.search.Sampler`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
)

from lkd_tune.config.settings.search import SearchSettings
from lkd_tune.tuning.samplers.evolution import LayerMapEvolution
from lkd_tune.tuning.samplers.subset import WithoutRecipes
from lkd_tune.tuning.samplers.tpe import BoundedTPE

# Trials before TPE has a model, known good points included. With ten, as is usual, a search is
# behind for its first minutes and never ahead: benchmarks/tuning/policies.py.
_TPE_STARTUP = 4


def build_sampler(search: SearchSettings, seed: int, *, at_random: bool = False) -> BaseSampler:
    """Returns the sampler for one draw.

    Args:
        search: Names the sampler, and has the number of trials.
        seed: The seed of this draw. Each draw gets a new sampler, so that a resumed search draws
            what the interrupted one would have drawn; all that samplers know is in the study.
        at_random: Whether to draw at random, because the earlier draws for this trial were all
            rejected. An exhaustive sampler ignores this.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if at_random and not search.is_exhaustive:
            return RandomSampler(seed=seed)
        return SAMPLERS[search.sampler](search, seed)


def build_tpe(seed: int, startup: int = _TPE_STARTUP) -> BoundedTPE:
    """Returns TPE as searches use it; it has a model after `startup` trials."""
    return BoundedTPE(
        seed=seed,
        multivariate=True,
        group=True,  # parameters of some options only are modelled among those
        constant_liar=True,  # running trials count as bad, so that new ones differ from them
        n_startup_trials=startup,
    )


class _Grid(BruteForceSampler):
    """Optuna's exhaustive sampler, for a study that is used by ask and tell."""

    def after_trial(self, *_: Any, **__: Any) -> None:
        """Does nothing: Optuna stops `Study.optimize` here, which does not run our trials."""


def _startup(search: SearchSettings) -> int:
    """Returns the random trials at the start: a quarter of a short search, ten of a long one."""
    return min(10, max(4, search.trials // 4))


def _population(search: SearchSettings) -> int:
    return min(50, max(4, search.trials // 5))


def _build_cma(search: SearchSettings, seed: int) -> BaseSampler:
    # Categories and conditional parameters are drawn at random, as the README says. Optuna would
    # warn about each of them.
    return WithoutRecipes(
        CmaEsSampler(seed=seed, n_startup_trials=_startup(search), warn_independent_sampling=False)
    )


SAMPLERS: dict[str, Callable[[SearchSettings, int], BaseSampler]] = {
    "tpe": lambda search, seed: build_tpe(seed),
    "random": lambda search, seed: RandomSampler(seed=seed),
    "grid": lambda search, seed: _Grid(seed=seed),
    "nsga2": lambda search, seed: WithoutRecipes(
        NSGAIISampler(seed=seed, population_size=_population(search))
    ),
    "nsga3": lambda search, seed: WithoutRecipes(
        NSGAIIISampler(seed=seed, population_size=_population(search))
    ),
    "gp": lambda search, seed: WithoutRecipes(
        GPSampler(seed=seed, n_startup_trials=_startup(search))
    ),
    "cma": _build_cma,
    "evolution": lambda search, seed: LayerMapEvolution(
        seed=seed, n_startup_trials=_startup(search)
    ),
}
