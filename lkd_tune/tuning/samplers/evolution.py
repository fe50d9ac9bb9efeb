"""Evolution of layer maps: children of good trials, by crossover and small moves."""

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

from lkd_tune.records.pareto import by_front

_KEY = re.compile(r"^(.*\.key\.)(\d+)$")
# Every second number moves, by about this share of its range (on a log scale of its logarithm's).
_STEP, _MOVES = 0.1, 1 / 2


class LayerMapEvolution(BaseSampler):
    """An Optuna sampler that breeds layer maps.

    Two parents are chosen by tournaments among the better half of all trials that were told,
    ordered by objectives, those stopped early after the complete ones by how far they came. A
    child takes each parameter from either parent. In two of three cases the keys of two
    neighbouring teacher layers are then swapped, which moves an entry of its map by one layer if
    one of the two was in it; numbers take small steps, choices are seldom drawn anew. The genetic
    operators are those of Jiao et al., "Improving Task-Agnostic BERT Distillation with Layer
    Mapping Search" (2020), on random keys, so that every child is an admissible map.

    Args:
        seed: Of the random numbers.
        n_startup_trials: So many trials are drawn at random first.
    """

    def __init__(self, seed: int | None = None, n_startup_trials: int = 8):
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._startup = n_startup_trials
        self._child: dict[str, Any] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns nothing: each parameter is asked for as it comes."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns nothing, likewise."""
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Breeds the child whose parameters are asked for next."""
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
        """Returns the child's value, with a small step; a random one if it has none."""
        value = self._child.get(param_name)
        if value is None or not _allows(param_distribution, value):
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        if _KEY.match(param_name) or self._rng.random() > _MOVES:
            return value
        if isinstance(param_distribution, CategoricalDistribution):
            if self._rng.random() > _MOVES:
                return value
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        assert isinstance(param_distribution, FloatDistribution | IntDistribution)
        return self._stepped(value, param_distribution)

    def _tournament(self, ordered: list[FrozenTrial]) -> FrozenTrial:
        """Returns the best of three drawn at random from the better half."""
        half = max(2, len(ordered) // 2)
        return ordered[int(self._rng.integers(half, size=3).min())]

    def _cross(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        """Returns each parameter of one parent or the other."""
        names = list(dict.fromkeys([*first, *second]))
        return {
            name: (pair if self._rng.random() < 0.5 else pair[::-1])[0]
            for name in names
            for pair in [(first.get(name, second.get(name)), second.get(name, first.get(name)))]
        }

    def _move_layer(self) -> None:
        """Swaps the keys of two neighbouring teacher layers, in two of three cases."""
        keys = {name: m for name in self._child if (m := _KEY.match(name))}
        if not keys or self._rng.random() > 2 / 3:
            return
        name = list(keys)[int(self._rng.integers(len(keys)))]
        prefix, layer = keys[name][1], int(keys[name][2])
        other = f"{prefix}{layer + int(self._rng.choice([-1, 1]))}"
        if other in keys:
            self._child[name], self._child[other] = self._child[other], self._child[name]

    def _stepped(self, value: float, dist: FloatDistribution | IntDistribution) -> float | int:
        """Returns a number a small step away, inside its range."""
        if dist.log:
            span = math.log(dist.high / dist.low)
            moved = value * math.exp(self._rng.normal(0, _STEP * span))
        else:
            moved = value + self._rng.normal(0, _STEP * (dist.high - dist.low))
        moved = min(max(moved, dist.low), dist.high)
        if dist.step:
            moved = dist.low + round((moved - dist.low) / dist.step) * dist.step
        return round(moved) if isinstance(dist, IntDistribution) else float(moved)


def _ordered(study: Study) -> list[FrozenTrial]:
    """Returns the trials that were told, best first."""
    told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    feasible = [t for t in told if all(value <= 0 for value in t.constraints.values())]
    signs = [-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions]
    complete = {
        str(t.number): tuple(sign * value for sign, value in zip(signs, t.values, strict=True))
        for t in feasible
        if t.state == TrialState.COMPLETE
    }
    place = {name: i for i, name in enumerate(by_front(complete))}

    def key(trial: FrozenTrial) -> tuple[float, ...]:
        if str(trial.number) in place:
            return (0, place[str(trial.number)], 0)
        step = trial.last_step
        return (1, -(step or 0), signs[0] * trial.intermediate_values[step] if step else 0.0)

    return sorted(feasible, key=key)


def _allows(dist: BaseDistribution, value: Any) -> bool:
    if isinstance(dist, CategoricalDistribution):
        return value in dist.choices
    assert isinstance(dist, FloatDistribution | IntDistribution)
    return dist.low <= value <= dist.high
