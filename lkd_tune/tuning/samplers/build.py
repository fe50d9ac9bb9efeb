"""The samplers of a search: Optuna's own, and one for layer maps."""

from __future__ import annotations

import warnings
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
from lkd_tune.tuning.samplers.tpe import BoundedTPE

# Trials before TPE has a model, known good points among them. With ten, as is usual, a search is
# behind for its first minutes and never ahead: benchmarks/policies.py.
_TPE_STARTUP = 4


def build_sampler(search: SearchSettings, seed: int, *, by_chance: bool = False) -> BaseSampler:
    """Returns the sampler for one draw.

    Args:
        search: Which one, and for how many trials.
        seed: Of this draw. A sampler is made for each, so that a resumed search draws what the
            one that was cut off would have drawn; all they know is in the study.
        by_chance: The earlier draws for this trial were all refused; draw at random. `grid` has
            no need of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.sampler == "grid":
            return _Grid(seed=seed)
        if search.sampler == "random" or by_chance:
            return RandomSampler(seed=seed)
        return _model_based(search, seed)


def build_tpe(seed: int, startup: int = _TPE_STARTUP) -> BoundedTPE:
    """Returns TPE as searches use it, which has a model after some trials."""
    return BoundedTPE(
        seed=seed,
        multivariate=True,
        group=True,  # parameters of some options only are modelled among those
        constant_liar=True,  # trials that run now are taken as bad, so that others differ
        n_startup_trials=startup,
    )


class _Grid(BruteForceSampler):
    """Optuna's exhaustive sampler, told of ends by `tell`."""

    def after_trial(self, *_: Any, **__: Any) -> None:
        """Does nothing: Optuna's ends `Study.optimize` here, which is not what runs trials."""


def _model_based(search: SearchSettings, seed: int) -> BaseSampler:
    # A quarter of a short search at random, ten trials of a long one.
    startup = min(10, max(4, search.trials // 4))
    population = min(50, max(4, search.trials // 5))
    match search.sampler:
        case "tpe":
            return build_tpe(seed)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=population)
        case "nsga3":
            return NSGAIIISampler(seed=seed, population_size=population)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup)
        case "cma":
            # Choices and numbers that exist for some options only are drawn at random, as said
            # in the README; not once for each of them.
            return CmaEsSampler(
                seed=seed, n_startup_trials=startup, warn_independent_sampling=False
            )
        case "evolution":
            return LayerMapEvolution(seed=seed, n_startup_trials=startup)
    raise AssertionError(search.sampler)
