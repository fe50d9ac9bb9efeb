"""Other loss weights near a trial's own, within what its space can draw."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from lkd_tune.config.distributions import Choice, Distribution, Numbers
from lkd_tune.config.errors import Problem
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.source import Source

# Jaderberg et al., "Population Based Training of Neural Networks" (2017): a value is drawn anew in
# one case of four, else moved by a fifth.
_ANEW = 0.25
_FACTORS = (0.8, 1.25)
_SMALLEST_POPULATION = 4


def perturbed_weights(
    losses: LossSettings, distributions: Mapping[str, Distribution], rng: random.Random
) -> dict[str, float]:
    """Returns other weights for those terms whose weights are searched and not 0.

    A weight of 0 stays: the term is no part of the trial's objective, and what it would need of
    the teacher is not there.

    Args:
        losses: The weights now.
        distributions: Of the space, by the names of their parameters.
        rng: Decides.
    """
    found = {}
    for term, settings in losses:
        dist = _distribution_of(term, distributions)
        if dist is not None and settings.weight > 0:
            found[term] = _moved(settings.weight, dist, rng)
    return found


def population_problems(
    settings: SpaceSettings, distributions: Mapping[str, Distribution], source: Source
) -> list[Problem]:
    """Returns why a space can't be searched by a population, if so."""
    if settings.search.scheduler != "pbt":
        return []
    problems = []
    if not any(_distribution_of(term, distributions) for term, _ in settings.losses):
        message = (
            "pbt changes loss weights, and none is searched; make one a distribution, such as "
            "losses.wr_pair: {loguniform: [0.1, 10]}, or use asha"
        )
        problems.append(source.problem(("search", "scheduler"), message))
    if settings.search.trials < _SMALLEST_POPULATION:
        message = f"pbt needs a population of at least {_SMALLEST_POPULATION} trials"
        problems.append(source.problem(("search", "trials"), message))
    if settings.train.evaluations < 2:
        message = "pbt changes weights at evaluations before the last; use 2 or more"
        problems.append(source.problem(("train", "evaluations"), message))
    return problems


def _distribution_of(
    term: str, distributions: Mapping[str, Distribution]
) -> Numbers | Choice | None:
    """Returns what draws a term's weight; of nested ones the inner, which has the numbers."""
    inner = distributions.get(f"losses.{term}.weight")
    dist = inner or distributions.get(f"losses.{term}")
    return dist if isinstance(dist, Numbers) or (dist and _weights_among(dist)) else None


def _weights_among(choice: Choice) -> list[float]:
    """Returns the options that are weights above 0, sorted."""
    return sorted(o for o in choice.options if _is_number(o) and o > 0)


def _moved(weight: float, dist: Distribution, rng: random.Random) -> float:
    anew = rng.random() < _ANEW
    if isinstance(dist, Choice):
        options = _weights_among(dist)
        if anew:
            return rng.choice(options)
        near = min(range(len(options)), key=lambda i: abs(options[i] - weight))
        return options[min(max(near + rng.choice((-1, 1)), 0), len(options) - 1)]
    if anew and dist.log:
        weight = math.exp(rng.uniform(math.log(dist.low), math.log(dist.high)))
    elif anew:
        weight = rng.uniform(dist.low, dist.high)
    else:
        weight *= rng.choice(_FACTORS)
    return float(dist.nearest(weight))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
