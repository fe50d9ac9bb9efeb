"""Latencies: calls take turns, a low quantile counts, and a busy machine is told."""

import time

import pytest
import torch

from lkd_tune.runtime.timing import busy_warning, time_in_turns


def test_other_work_on_the_machine_does_not_change_which_is_faster(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    order = []

    def call(name, seconds):
        def run():
            nonlocal now
            order.append(name)
            # From the 20th call on, something else slows everything down.
            now += seconds * (5 if len(order) > 20 else 1)

        return run

    fast, slow = time_in_turns([call("a", 0.01), call("b", 0.02)], torch.device("cpu"))
    assert (fast.ms, slow.ms) == pytest.approx((10.0, 20.0))
    assert fast.spread == pytest.approx(5)
    assert order[4:] == ["a", "b"] * ((len(order) - 4) // 2)
    told = busy_warning([slow.spread, fast.spread])
    assert told is not None
    assert "vary by a factor of 5.0: the machine is busy (load" in told


def test_an_idle_machine_is_not_warned_of():
    assert busy_warning([1.0, 1.2]) is None
    assert busy_warning([]) is None


def test_slow_calls_are_made_a_few_times_only():
    made = []

    def call():
        made.append(time.sleep(0.3))

    (timing,) = time_in_turns([call], torch.device("cpu"))
    assert timing.ms >= 300
    assert len(made) == 7  # two of them not timed
