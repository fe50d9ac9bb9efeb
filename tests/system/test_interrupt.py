"""Ctrl-C: a search stops within seconds, keeps all, leaves no process, and goes on later."""

from __future__ import annotations

import os
import signal
import time

import pytest

from lkd_tune.records.run import RunFolder
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_stops_within_seconds_and_continues_later(folder, number):
    write_space(folder, trials=3, scheduler="none")
    run = RunFolder(folder / "run")
    driver = start(folder)
    wait_until(has_checkpoint(run, "0001"), driver)
    processes = family(driver)
    asked = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(driver.pid, number)  # as a terminal does: to all processes in the foreground
    else:
        driver.send_signal(number)
    assert driver.wait(15) == 0
    assert time.monotonic() - asked < 10
    wait_until(lambda: not living(processes))
    log = (folder / "run.log").read_text()
    assert "True" in log.splitlines()[-1]
    assert "Traceback" not in log
    before = what_became(run)
    cut = max(before)
    assert [name for name, (_, state, _) in before.items() if state == "running"] == [cut]
    assert before["0000"][1] == "complete"
    assert run.student("0000").exists()
    if number == signal.SIGTERM:
        return  # that it goes on is seen with the other

    assert start(folder).wait(PATIENCE_S) == 0
    after = what_became(run)
    assert len(after) == 3
    assert all(after[name] == before[name] for name in before if name != cut)
    assert after[cut][0] == before[cut][0]
    assert after[cut][2][: len(before[cut][2])] == before[cut][2]
    assert {state for _, state, _ in after.values()} == {"complete"}
    assert (folder / "run.log").read_text().splitlines()[-1].endswith("False 3")


def test_a_run_belongs_to_one_driver_at_a_time(folder):
    write_space(folder)
    run = RunFolder(folder / "run")
    driver = start(folder)
    wait_until(run.manifest.exists, driver)
    second = start(folder)
    assert second.wait(PATIENCE_S) != 0
    assert "is being searched by another process" in (folder / "run.log").read_text()
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(30) == 0
