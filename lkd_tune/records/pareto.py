"""The Pareto front of several objectives, its knee, and an order of all trials by it.

Costs are tuples with one entry for each objective; smaller is better in every entry, so the score
has its sign changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lkd_tune.config.objectives import OBJECTIVES, SCORE
from lkd_tune.records.measurement import ModelSize

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


def violations(limits: Mapping[str, float], size: ModelSize | None) -> dict[str, float]:
    """Returns by how much a student exceeds each limit, as a share of the limit.

    Values at most 0 are within the limit. Limits on costs that are not measured yet are left out.
    """
    found = {}
    for name, limit in limits.items():
        value = getattr(size, name) if size is not None else None
        if value is not None:
            found[name] = (value - limit) / limit
    return found


def front_of(costs: Mapping[str, Costs]) -> list[str]:
    """Returns the names that no other one dominates; of those with equal costs the first."""
    import moocore  # takes a moment

    if not costs:
        return []
    on_front = moocore.is_nondominated(_table(costs))  # of equal rows the first
    return [name for name, on in zip(costs, on_front, strict=True) if on]


def knee_of(costs: Mapping[str, Costs], among: Iterable[str] | None = None) -> str | None:
    """Returns the member of the front that is nearest to the ideal point.

    The ideal point has the best value of every objective. Each objective is scaled to [0, 1], from
    the best value on the front to the worst. Returns None if there are no costs.

    Args:
        costs: All costs by name.
        among: The names that may be returned if they are on the front. Default: all.
    """
    scaled = normalised({name: costs[name] for name in front_of(costs)})
    eligible = set(scaled if among is None else among) & {*scaled}
    return min(eligible, key=lambda name: (math.hypot(*scaled[name]), name), default=None)


def nondominated_order(costs: Mapping[str, Costs]) -> list[str]:
    """Returns all names: first the Pareto front, then the front of the others, and so on.

    Within a front, each name is the farthest from those before it (an epsilon net), so that the
    first names span the front. Names with equal costs stay together.

    Source: Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021.
    """
    import moocore

    if not costs:
        return []
    fronts: dict[int, dict[str, Costs]] = {}
    for name, rank in zip(costs, moocore.pareto_rank(_table(costs)), strict=True):
        fronts.setdefault(int(rank), {})[name] = costs[name]
    return [name for rank in sorted(fronts) for name in _spread(normalised(fronts[rank]))]


def normalised(costs: Mapping[str, Costs]) -> dict[str, Costs]:
    """Returns the costs with every entry scaled to [0, 1], from the best value to the worst."""
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
    """Returns the costs as rows; a column of zeros is added because moocore needs two."""
    return [(*own, 0.0) for own in costs.values()]


def _spread(points: Mapping[str, Costs]) -> list[str]:
    """Returns the names so that each is the farthest from those before it; lowest costs first."""
    left = sorted(points, key=lambda name: points[name])
    near = dict.fromkeys(left, math.inf)  # distance to the nearest name before
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
