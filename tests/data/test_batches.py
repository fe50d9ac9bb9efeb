"""Batches: each example once, none too large, the same wherever a training begins."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.data.batches import Batches, batches_of_tokens, padded_width

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


def _sized(lengths: np.ndarray, size: int, seed: int = 0) -> Batches:
    return Batches(lengths, TrainSettings(batch_size=size), seed)


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 16), seed=st.integers(0, 5))
def test_an_epoch_has_full_batches_and_no_example_twice(lengths, size, seed):
    batches = _sized(lengths, size, seed).epoch(0)
    assert {len(batch) for batch in batches} == {size}
    examples = np.concatenate(batches)
    if len(lengths) >= size:
        assert len(set(examples.tolist())) == len(examples) > len(lengths) - size


@settings(max_examples=100, deadline=None)
@given(
    lengths=LENGTHS,
    budget=st.integers(8, 400),
    shares=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_a_token_budget_is_kept_and_has_each_example_once(lengths, budget, shares, seed):
    train = TrainSettings(tokens_per_batch=budget)
    batches = Batches(lengths, train, seed, shares=shares).epoch(0)
    assert min(map(len, batches)) >= shares
    if len(lengths) >= shares:
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        # Above the budget only where each worker's one example is too long, or two such are left.
        assert len(batch) * padded_width(lengths[batch]) <= budget or len(batch) < 2 * shares


@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, step=st.integers(0, 40), budget=st.none() | st.integers(60, 400))
def test_batches_from_a_later_step_are_those_of_the_whole_sequence(lengths, step, budget):
    batches = Batches(lengths, TrainSettings(batch_size=8, tokens_per_batch=budget), 3)
    whole = [batch for batch, _ in zip(batches.starting_at(0), range(step + 5), strict=False)]
    later = [batch for batch, _ in zip(batches.starting_at(step), range(5), strict=False)]
    assert all(np.array_equal(a, b) for a, b in zip(whole[step:], later, strict=True))


def test_bucketing_leaves_little_padding():
    lengths = np.random.default_rng(0).integers(4, 60, 2000)
    widths = [lengths[batch].max() * len(batch) for batch in _sized(lengths, 32).epoch(0)]
    random = [lengths[i : i + 32].max() * 32 for i in range(0, 1984, 32)]
    assert sum(widths) < 1.1 * lengths.sum() < 0.7 * sum(random)


def test_a_token_budget_fills_its_batches():
    lengths = np.random.default_rng(0).integers(4, 60, 2000)
    batches = Batches(lengths, TrainSettings(tokens_per_batch=1024), 0).epoch(0)
    held = [len(batch) * padded_width(lengths[batch]) for batch in batches]
    assert max(held) <= 1024
    assert sum(held) / len(held) > 0.9 * 1024


def test_total_steps():
    lengths = np.full(105, 8)
    assert Batches(lengths, TrainSettings(epochs=2, batch_size=10), 0).total_steps() == 20
    assert Batches(lengths, TrainSettings(epochs=0.5, batch_size=10), 0).total_steps() == 5
    assert Batches(lengths, TrainSettings(steps=7), 0).total_steps() == 7
    assert Batches(lengths, TrainSettings(epochs=2, tokens_per_batch=80), 0).total_steps() == 22


@settings(max_examples=50, deadline=None)
@given(
    lengths=LENGTHS.map(lambda lengths: np.clip(lengths, 1, 32)),
    budget=st.integers(2 * 4 * 32, 800),
    seed=st.integers(0, 5),
)
def test_the_number_of_workers_does_not_change_the_batches(lengths, budget, seed):
    train = TrainSettings(tokens_per_batch=budget)
    of_one, of_two, of_four = (
        Batches(lengths, train, seed, shares=shares).epoch(0) for shares in (1, 2, 4)
    )
    if len(lengths) < 4:  # then examples are repeated for those that would have none
        return
    for other in (of_two, of_four):
        assert [batch.tolist() for batch in of_one] == [batch.tolist() for batch in other]


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, tokens=st.integers(1, 500))
def test_batches_of_tokens_have_each_example_once_and_are_as_large_as_allowed(lengths, tokens):
    batches = batches_of_tokens(lengths, tokens)
    assert sorted(np.concatenate(batches).tolist()) == [*range(len(lengths))]
    for batch, after in itertools.pairwise([*batches, None]):
        width = padded_width(lengths[batch])
        assert len(batch) == 1 or len(batch) * width <= tokens
        if after is not None:  # one more would have been too many
            assert (len(batch) + 1) * padded_width(lengths[after[:1]]) > tokens
            assert lengths[after].min() >= lengths[batch].max()
