"""Dominance, fronts and knees, against their definitions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkd_tune.records.measurement import ModelSize
from lkd_tune.records.pareto import (
    Costs,
    costs_of,
    front_of,
    knee_of,
    nondominated_order,
    normalised,
    violations,
)

SIZE = ModelSize(parameters=100, flops=2000, disk_mb=0.4, latency_ms=3.0)
COSTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20
).map(lambda rows: {f"{i:04d}": tuple(map(float, row)) for i, row in enumerate(rows)})


def dominates(a: Costs, b: Costs) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def test_a_score_costs_its_negative():
    assert costs_of(["score", "parameters", "latency_ms"], 0.8, SIZE) == (-0.8, 100, 3.0)
    with pytest.raises(ValueError, match="latency_ms_batch_32 was not measured"):
        costs_of(["score", "latency_ms_batch_32"], 0.8, SIZE)
    with pytest.raises(ValueError, match="parameters was not measured"):
        costs_of(["score", "parameters"], 0.8, None)


def test_excesses_are_shares_of_the_limit():
    found = violations({"parameters": 80, "disk_mb": 0.5, "latency_ms_batch_32": 1}, SIZE)
    assert found == {"parameters": pytest.approx(0.25), "disk_mb": pytest.approx(-0.2)}
    assert violations({"parameters": 80}, None) == {}


@given(COSTS)
def test_the_front_is_all_that_nothing_dominates_each_cost_once(costs):
    front = front_of(costs)
    undominated = {c for c in costs.values() if not any(dominates(o, c) for o in costs.values())}
    assert {costs[name] for name in front} == undominated
    assert len(front) == len(undominated)
    for name in front:  # of equal ones the first
        assert name == next(n for n, c in costs.items() if c == costs[name])


@given(COSTS)
def test_fronts_come_one_after_the_other(costs):
    ordered = nondominated_order(costs)
    assert sorted(ordered) == sorted(costs)
    for i, j in itertools.combinations(range(len(ordered)), 2):
        assert not dominates(costs[ordered[j]], costs[ordered[i]])


def test_the_first_of_a_front_span_it():
    line = {f"{i}": (float(i), float(10 - i)) for i in range(11)}
    first = nondominated_order(line)[:3]
    assert {*first[:2]} == {"0", "10"}
    assert first[2] == "5"


@given(COSTS)
def test_the_knee_is_on_the_front_and_nearest_to_the_best_of_all(costs):
    front = {name: costs[name] for name in front_of(costs)}
    knee = knee_of(front)
    assert knee is not None
    far = {name: sum(x * x for x in own) for name, own in normalised(front).items()}
    assert far[knee] == min(far.values())


def test_a_knee_of_a_bent_front():
    assert knee_of({"a": (0, 10), "b": (1, 1), "c": (10, 0)}) == "b"
    assert knee_of({}) is None
