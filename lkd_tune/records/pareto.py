"""Several objectives: the Pareto front, and its knee.

Costs are tuples in which less is better in every place; a score stands there with its sign turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lkd_tune.config.objectives import OBJECTIVES, SCORE
from lkd_tune.records.size import ModelSize

Costs = tuple[float, ...]


def costs_of(objectives: Sequence[str], score: float, size: ModelSize | None) -> Costs:
    """Returns a student's cost in each objective; smaller is better in all of them.

    Raises:
        ValueError: If an objective was not measured.
    """
    costs = []
    for name in objectives:
        value = score if name == SCORE else _measured(size, name)
        costs.append(-value if OBJECTIVES[name].maximize else value)
    return tuple(costs)


def excesses(limits: Mapping[str, float], size: ModelSize | None) -> dict[str, float]:
    """Returns by how much a student is above each limit, as a share of it; below 0: within.

    Limits on what is not measured yet are left out.
    """
    found = {}
    for name, limit in limits.items():
        value = getattr(size, name) if size is not None else None
        if value is not None:
            found[name] = (value - limit) / limit
    return found


def front_of(costs: Mapping[str, Costs]) -> list[str]:
    """Returns the names that no other dominates; of equal costs the first alone."""
    import moocore  # takes a moment

    if not costs:
        return []
    on_front = moocore.is_nondominated(_table(costs))  # of equal rows the first
    return [name for name, on in zip(costs, on_front, strict=True) if on]


def knee_of(costs: Mapping[str, Costs], among: Iterable[str] | None = None) -> str | None:
    """Returns the member of the front nearest to the point that has the best of every objective.

    Each objective counts from 0, the front's best, to 1, its worst.

    Args:
        costs: Of all.
        among: Only these are eligible, as far as they are on the front; none: all.
    """
    scaled = normalised({name: costs[name] for name in front_of(costs)})
    eligible = set(scaled if among is None else among) & {*scaled}
    return min(eligible, key=lambda name: (math.hypot(*scaled[name]), name), default=None)


def by_front(costs: Mapping[str, Costs]) -> list[str]:
    """Returns all names, those of the front first, then the front of the others, and so on.

    Within a front each next one is the farthest from those before it (an epsilon net), so that
    any first part of the list spans the front, as in multi-objective successive halving (Schmucker
    et al., "Multi-objective Asynchronous Successive Halving", 2021). Equal costs stay together.
    """
    import moocore

    if not costs:
        return []
    fronts: dict[int, dict[str, Costs]] = {}
    for name, rank in zip(costs, moocore.pareto_rank(_table(costs)), strict=True):
        fronts.setdefault(int(rank), {})[name] = costs[name]
    return [name for rank in sorted(fronts) for name in _spread(normalised(fronts[rank]))]


def normalised(costs: Mapping[str, Costs]) -> dict[str, Costs]:
    """Returns costs of which each place goes from 0 (the best) to 1 (the worst)."""
    if not costs:
        return {}
    lows = [min(column) for column in zip(*costs.values(), strict=True)]
    highs = [max(column) for column in zip(*costs.values(), strict=True)]
    return {
        name: tuple(
            (x - low) / (high - low) if high > low else 0.0
            for x, low, high in zip(own, lows, highs, strict=True)
        )
        for name, own in costs.items()
    }


def _table(costs: Mapping[str, Costs]) -> list[Costs]:
    """Returns costs as rows; a column of zeros more, as a single objective is no front's."""
    return [(*own, 0.0) for own in costs.values()]


def _spread(points: Mapping[str, Costs]) -> list[str]:
    """Returns names such that each is the farthest from those before; the best score first."""
    left = sorted(points, key=lambda name: points[name])
    near = dict.fromkeys(left, math.inf)  # how far each is from the nearest of those before
    ordered = []
    while left:
        last = max(left, key=lambda name: near[name])
        ordered.append(last)
        left.remove(last)
        for name in left:
            near[name] = min(near[name], math.dist(points[name], points[last]))
    return ordered


def _measured(size: ModelSize | None, name: str) -> float:
    value = None if size is None else getattr(size, name)
    if value is None:
        raise ValueError(f"{name} was not measured")
    return float(value)
