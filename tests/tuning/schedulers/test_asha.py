"""Which trials continue at a rung."""

from __future__ import annotations

import random

import pytest

from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.trial_record import Outcome, TrialRecord
from lkd_tune.tuning.schedulers.asha import SuccessiveHalving, bracket_of
from tests.tuning.study.test_searcher import drawn, measurement, searcher


def test_the_best_of_each_three_at_a_rung_continues():
    rungs = SuccessiveHalving(3)
    scores = [0.5, 0.4, 0.6, 0.55, 0.7, 0.58]
    continued = [rungs.continues(f"{i}", measurement(2, score)) for i, score in enumerate(scores)]
    assert continued == [True, False, True, False, True, False]


def test_equal_scores_continue():
    rungs = SuccessiveHalving(3)
    assert all(rungs.continues(f"{i}", measurement(2, 0.5)) for i in range(5))


def test_rungs_do_not_mix():
    rungs = SuccessiveHalving(2)
    assert rungs.continues("a", measurement(2, 0.9))
    assert rungs.continues("b", measurement(4, 0.1))
    assert not rungs.continues("c", measurement(4, 0.05))


def test_trials_of_different_lengths_meet_at_the_same_share_of_their_steps():
    rungs = SuccessiveHalving(2)
    assert rungs.continues("a", measurement(4, 0.9, total=8))
    assert not rungs.continues("b", measurement(50, 0.8, total=100))
    assert not rungs.continues("c", measurement(51, 0.8, total=101))  # a rounded half


def test_a_trial_is_judged_once_at_a_rung_and_never_at_its_end():
    rungs = SuccessiveHalving(2)
    assert rungs.continues("a", measurement(4, 0.1))
    assert rungs.continues("b", measurement(4, 0.9))
    assert rungs.continues("a", measurement(4, 0.1))
    assert rungs.continues("c", measurement(8, 0.0))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_about_one_in_factor_continues(factor):
    rng, rungs = random.Random(factor), SuccessiveHalving(factor)
    continued = sum(rungs.continues(str(i), measurement(2, rng.random())) for i in range(600))
    assert 0.8 / factor < continued / 600 < 1.4 / factor


def test_a_resumed_search_restores_the_rungs_but_judges_a_last_score_again(tmp_path):
    _, spec = drawn(searcher(tmp_path).suggest("a"))

    def record(name: str, *scored: Measurement, ended: bool) -> TrialRecord:
        outcome = Outcome(state="stopped") if ended else None
        return TrialRecord(name, spec, scored, outcome, kept=False)

    rungs = SuccessiveHalving(
        2,
        [
            record("a", measurement(2, 0.9), measurement(4, 0.9), ended=True),
            record("b", measurement(2, 0.8), measurement(4, 0.1), ended=False),
        ],
    )
    assert rungs.continues("b", measurement(2, 0.8))  # it did
    assert not rungs.continues("b", measurement(4, 0.1))


def size(parameters: int) -> ModelSize:
    return ModelSize(parameters=parameters, flops=1, disk_mb=1.0)


def test_with_several_objectives_small_students_are_not_stopped_for_their_score():
    rungs = SuccessiveHalving(2, objectives=["score", "parameters"])
    trials = [(0.9, 100), (0.5, 10), (0.8, 90), (0.85, 95), (0.4, 20), (0.95, 50)]
    continued = [
        rungs.continues(f"{i}", measurement(2, score), size(parameters))
        for i, (score, parameters) in enumerate(trials)
    ]
    # None of the first four dominates another; of them the best score and the smallest, its
    # farthest, would go on. The fifth is dominated by the second, the last dominates the others.
    assert continued == [True, False, False, False, False, True]


def test_records_fill_the_rungs_with_their_sizes(tmp_path):
    search = searcher(tmp_path)
    _, spec = drawn(search.suggest("a"))
    record = TrialRecord(
        "0000", spec, (measurement(2, 0.9),), Outcome(state="stopped"), False, size(10)
    )
    rungs = SuccessiveHalving(2, [record], ["score", "parameters"])
    assert not rungs.continues("0001", measurement(2, 0.8), size(20))


def test_hyperbands_brackets_have_its_shares():
    # Of 3 brackets at factor 3: 9, 4.5 and 3 configurations.
    dealt = [bracket_of(i, 3, 3) for i in range(33)]
    assert [dealt.count(bracket) for bracket in range(3)] == [18, 9, 6]
    assert dealt[0] == 0
    assert {*dealt[:6]} == {0, 1, 2}


def test_a_bracket_is_judged_by_itself_and_not_at_its_first_rungs():
    rungs = SuccessiveHalving(2, brackets=3)
    by_bracket = {b: [i for i in range(40) if bracket_of(i, 3, 2) == b] for b in range(3)}
    for numbers, judged_at in zip(by_bracket.values(), [{2, 4}, {4}, set()], strict=True):
        best, worse = (f"{i:04d}" for i in numbers[:2])
        for step in (2, 4):
            assert rungs.continues(best, measurement(step, 0.9))
            assert rungs.continues(worse, measurement(step, 0.1)) == (step not in judged_at)
