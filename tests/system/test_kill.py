"""A driver that is killed, and the search that goes on as if nothing had been."""

from __future__ import annotations

from collections import Counter

import pytest

from lkd_tune.records.run import RunFolder
from tests.support.studies import open_study
from tests.system.driver import (
    PATIENCE_S,
    family,
    has_checkpoint,
    living,
    start,
    wait_until,
    what_became,
    write_space,
)

pytestmark = pytest.mark.slow


def test_killed_searches_end_as_one_that_was_left_alone(folder):
    write_space(folder, trials=4, reduction_factor=2)
    alone = start(folder, "alone")
    run = RunFolder(folder / "run")
    for name in ("0001", "0002"):
        driver = start(folder)
        wait_until(has_checkpoint(run, name), driver)
        processes = family(driver)
        driver.kill()
        driver.wait()
        # Ray's own agents take a minute to see it; the trial's process must not.
        trials = [p for p in processes if "Distillation" in p.name()]
        wait_until(lambda trials=trials: not living(trials))
    last = start(folder)
    assert last.wait(PATIENCE_S) == 0
    assert alone.wait(PATIENCE_S) == 0

    expected = what_became(RunFolder(folder / "alone"))
    assert what_became(run) == expected
    assert {state for _, state, _ in expected.values()} == {"complete", "stopped"}
    students = sorted(path.name for path in (folder / "alone" / "students").iterdir())
    assert sorted(path.name for path in run.students.iterdir()) == students
    for name in students:
        weights = [
            (folder / where / "students" / name / "model.safetensors").read_bytes()
            for where in ("run", "alone")
        ]
        assert weights[0] == weights[1]
    # None was run twice: no step was measured again but at most the one at each kill.
    steps = Counter(
        line.partition(",")[0] + path.parent.name
        for path in run.path.glob("trials/*/measurements.jsonl")
        for line in path.read_text().splitlines()
    )
    assert sum(times - 1 for times in steps.values()) <= 2
    assert not list(run.path.glob("trials/*/checkpoint-*"))
    assert not list(run.path.glob("trials/*/student"))
    told = [
        trial.state.name for trial in open_study(run.study).trials if "name" in trial.user_attrs
    ]
    assert sorted(told) == sorted(
        {"complete": "COMPLETE", "stopped": "PRUNED"}[state] for _, state, _ in expected.values()
    )
