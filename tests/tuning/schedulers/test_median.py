"""The median rule where it differs from Ray's: repeats, resuming, odd lengths, exceptions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from lkd_tune.records.measurement import Measurement
from lkd_tune.records.trial_record import Outcome, TrialRecord
from lkd_tune.tuning.schedulers.median import MedianStopping
from tests.tuning.study.test_searcher import drawn, measurement, searcher

NOBODY = SimpleNamespace(get_live_trials=list)
STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


class Trial:
    """What a scheduler sees of one of Tune's trials."""

    def __init__(self, name: str):
        self.trial_id, self.config = name, {"name": name}


def report(median: MedianStopping, trial: Trial, measured: Measurement) -> str:
    result: dict[str, Any] = {"measurement": measured.model_dump_json()}
    return median.on_trial_result(NOBODY, trial, result)


def report_three_others(
    median: MedianStopping, quarter: float, half: float, total: int = 32
) -> list[Trial]:
    trials = [Trial(f"{i:04d}") for i in range(3)]
    for trial in trials:
        assert report(median, trial, measurement(total // 4, quarter, total)) == CONTINUE
        assert report(median, trial, measurement(total // 2, half, total)) == CONTINUE
    return trials


@pytest.mark.parametrize("again", [False, True])
def test_a_measurement_that_is_reported_again_changes_nothing(again):
    median = MedianStopping()
    others = [Trial(f"{i:04d}") for i in range(3)]
    for trial in others:
        for _ in range(2 if again else 1):
            report(median, trial, measurement(8, 0.2, 32))
    for trial in others:
        report(median, trial, measurement(16, 0.8, 32))
    late = Trial("0003")
    report(median, late, measurement(8, 0.3, 32))
    assert report(median, late, measurement(16, 0.45, 32)) == STOP  # the others' mean is 0.5


def test_an_unfinished_trial_keeps_its_earlier_scores_after_a_crash(tmp_path):
    _, spec = drawn(searcher(tmp_path).suggest("a"))
    steps = (measurement(8, 0.2, 32), measurement(16, 0.6, 32))
    records = [
        TrialRecord(f"{i:04d}", spec, steps, Outcome(state="stopped"), False) for i in range(3)
    ]
    own = (measurement(8, 0.9, 32), measurement(16, 0.3, 32))
    resumed = MedianStopping([*records, TrialRecord("0003", spec, own, None, False)])
    trial = Trial("0003")
    resumed.on_trial_add(NOBODY, trial)
    # Its best so far is 0.9, from before the crash.
    assert report(resumed, trial, own[-1]) == CONTINUE


def test_trials_of_different_lengths_meet_at_the_same_share_of_their_steps():
    median = MedianStopping()
    report_three_others(median, 0.9, 0.9, total=100)
    assert report(median, Trial("0003"), measurement(51, 0.1, 101)) == STOP  # a rounded half
