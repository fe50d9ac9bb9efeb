"""Evolution of layer maps: new trials from good ones, by crossover and mutation."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lkd_tune.records.pareto import nondominated_order

_LAYER_KEY = re.compile(r"^(.*\.key\.)(\d+)$")
# Half of the numbers and choices mutate. The standard deviation of a number's step is this share
# of its range (on a log scale: of the range of its logarithm).
_MUTATION_RATE, _STEP_SHARE = 1 / 2, 0.1
_LAYER_MOVE_RATE = 2 / 3


class LayerMapEvolution(BaseSampler):
    """An Optuna sampler that evolves layer maps.

    Tournaments choose two parents from the better half of the ended trials. Trials are ordered by
    the objectives; those stopped early come after the complete ones, by their steps. A child takes
    each parameter from one parent or the other. In two of three cases it then swaps the keys of
    two neighbouring teacher layers, which moves an entry of its map by one layer if the map has
    one of the two. Half of the numbers take a small step, a quarter of the choices are drawn again.
    The genetic operators are those of Jiao et al., "Improving Task-Agnostic BERT Distillation with
    Layer Mapping Search" (2020), on random keys, so that every child is an admissible map.

    Args:
        seed: Seed of the random numbers.
        n_startup_trials: Number of trials to draw at random first.
    """

    def __init__(self, seed: int | None = None, n_startup_trials: int = 8):
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._startup = n_startup_trials
        self._child: dict[str, Any] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns {}: each parameter is drawn independently."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns {}: each parameter is drawn independently."""
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Makes the child whose parameters are drawn next."""
        ordered = _ordered(study)
        self._child = {}
        if len(ordered) >= self._startup:
            first, second = (self._tournament(ordered) for _ in range(2))
            self._child = self._cross(first.params, second.params)
            self._move_layer()

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns the child's value, possibly mutated; a random value if the child has none."""
        value = self._child.get(param_name)
        if value is None or not _allows(param_distribution, value):
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        if _LAYER_KEY.match(param_name) or self._rng.random() > _MUTATION_RATE:
            return value
        if isinstance(param_distribution, CategoricalDistribution):
            if self._rng.random() > _MUTATION_RATE:
                return value
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        assert isinstance(param_distribution, FloatDistribution | IntDistribution)
        return self._mutate(value, param_distribution)

    def _tournament(self, ordered: list[FrozenTrial]) -> FrozenTrial:
        """Returns the best of three drawn at random from the better half."""
        half = max(2, len(ordered) // 2)
        return ordered[int(self._rng.integers(half, size=3).min())]

    def _cross(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        """Returns a child: each parameter comes from one parent or the other."""
        names = list(dict.fromkeys([*first, *second]))
        return {
            name: (pair if self._rng.random() < 0.5 else pair[::-1])[0]
            for name in names
            for pair in [(first.get(name, second.get(name)), second.get(name, first.get(name)))]
        }

    def _move_layer(self) -> None:
        """Swaps the keys of two neighbouring teacher layers with `_LAYER_MOVE_RATE`."""
        keys = {name: m for name in self._child if (m := _LAYER_KEY.match(name))}
        if not keys or self._rng.random() > _LAYER_MOVE_RATE:
            return
        name = list(keys)[int(self._rng.integers(len(keys)))]
        prefix, layer = keys[name][1], int(keys[name][2])
        other = f"{prefix}{layer + int(self._rng.choice([-1, 1]))}"
        if other in keys:
            self._child[name], self._child[other] = self._child[other], self._child[name]

    def _mutate(self, value: float, dist: FloatDistribution | IntDistribution) -> float | int:
        """Returns a number a small step away, within its range."""
        if dist.log:
            span = math.log(dist.high / dist.low)
            moved = value * math.exp(self._rng.normal(0, _STEP_SHARE * span))
        else:
            moved = value + self._rng.normal(0, _STEP_SHARE * (dist.high - dist.low))
        moved = min(max(moved, dist.low), dist.high)
        if dist.step:
            moved = dist.low + round((moved - dist.low) / dist.step) * dist.step
        return round(moved) if isinstance(dist, IntDistribution) else float(moved)


def _ordered(study: Study) -> list[FrozenTrial]:
    """Returns the ended trials that violate no limit, best first."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    feasible = [t for t in ended if all(value <= 0 for value in t.constraints.values())]
    signs = [-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions]
    complete = {
        str(t.number): tuple(sign * value for sign, value in zip(signs, t.values, strict=True))
        for t in feasible
        if t.state == TrialState.COMPLETE
    }
    rank = {name: i for i, name in enumerate(nondominated_order(complete))}

    def key(trial: FrozenTrial) -> tuple[float, ...]:
        if str(trial.number) in rank:
            return (0, rank[str(trial.number)], 0)
        step = trial.last_step
        return (1, -(step or 0), signs[0] * trial.intermediate_values[step] if step else 0.0)

    return sorted(feasible, key=key)


def _allows(dist: BaseDistribution, value: Any) -> bool:
    if isinstance(dist, CategoricalDistribution):
        return value in dist.choices
    assert isinstance(dist, FloatDistribution | IntDistribution)
    return dist.low <= value <= dist.high
