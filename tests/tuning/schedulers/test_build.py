"""Every scheduler is built; in a real search they stop the trials that their rule says."""

from __future__ import annotations

import statistics
from typing import get_args

import pytest
from ray.tune.schedulers import TrialScheduler

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.search import Scheduler
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.schedulers.asha import bracket_of
from lkd_tune.tuning.schedulers.build import SCHEDULERS, build_scheduler
from lkd_tune.tuning.tuner import run_search
from tests.support.tiny import LABELS, make_space

pytestmark = pytest.mark.usefixtures("two_cores")


def test_every_scheduler_of_the_settings_is_built(tmp_path):
    assert {*SCHEDULERS} == {*get_args(Scheduler)}
    settings = make_space(tmp_path).settings
    for build in SCHEDULERS.values():
        scheduler = build(settings, [])
        assert scheduler is None or isinstance(scheduler, TrialScheduler)


def searched(folder, scheduler, **search):
    space = make_space(
        folder,
        losses={**LABELS, "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 1}},
        train={"lr": {"choice": [1e-9, 1e-2]}, "steps": 32, "evaluations": 3},
        search={"trials": 10, "scheduler": scheduler, **search},
    )
    run = RunFolder(folder / "run")
    run_search(space, run, quiet=True)
    return space, run.read_trials()


@pytest.mark.slow
def test_the_median_rule(tmp_path):
    space, records = searched(tmp_path, "median")
    assert {record.state for record in records} == {"complete", "stopped"}
    for number, record in enumerate(records):
        for measurement in record.measurements[:-1]:  # it continued after these
            assert not _below(records[:number], measurement, record)
        if record.state == "stopped":
            assert _below(records[:number], record.measurements[-1], record)
    # As after a crash: what had ended is known again.
    again = build_scheduler(space.settings, records)
    assert len(again._results) == 10


def _below(earlier, measurement, record) -> bool:
    """Whether the best score so far is below the median of the others' means by this share."""
    means = [
        statistics.mean(m.score for m in other.measurements if m.share <= measurement.share)
        for other in earlier
        if other.measurements[-1].share >= measurement.share
    ]
    best = max(m.score for m in record.measurements if m.share <= measurement.share)
    return len(means) >= 3 and statistics.median(means) > best


@pytest.mark.slow
def test_hyperband_lets_slow_starters_continue(tmp_path):
    _, records = searched(tmp_path, "hyperband", reduction_factor=2)
    reached = {0: set(), 1: set(), 2: set()}
    for record in records:
        reached[bracket_of(int(record.name), 3, 2)].add(len(record.measurements))
    assert min(reached[1]) >= 2
    assert reached[2] == {3}
    assert "stopped" in {record.state for record in records}


def test_median_refuses_several_objectives(tmp_path):
    with pytest.raises(SpecError, match="median supports only one objective; use asha"):
        make_space(tmp_path, search={"scheduler": "median"}, objectives=["score", "parameters"])
