"""Ray that dies under a search, and signals at any moment: one message, no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lkd_tune.records.run import RunFolder
from tests.support.clusters import LocalCluster
from tests.system.driver import (
    PATIENCE_S,
    family,
    has_checkpoint,
    living,
    wait_until,
    what_became,
    write_space,
)

# On a quiet machine it takes at most ten; Ray alone takes a minute or does not end.
SECONDS = 40


def search(folder: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Starts the command as a shell does: as the leader of a group of processes."""
    log = (folder / "log").open("w")
    return subprocess.Popen(
        [sys.executable, "-m", "lkd_tune.cli", "search", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **env},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def begin(folder: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    where = ["--space", "space.yaml", "--run-dir", str(folder), "--name", "run"]
    return search(folder, *where, *arguments, **env)


def says(folder: Path, text: str) -> Callable[[], bool]:
    return lambda: text in (folder / "log").read_text()


def ended(folder: Path, driver: subprocess.Popen[str], processes: list[psutil.Process]) -> str:
    """Returns the last line of a driver that is to end soon and to leave no process."""
    asked = time.monotonic()
    driver.wait(SECONDS)
    wait_until(lambda: not living(processes))
    assert time.monotonic() - asked < SECONDS
    log = (folder / "log").read_text()
    assert "Traceback" not in log, log
    assert "raylet)" not in log, log  # lines of Ray's
    assert "core_worker" not in log, log
    return log.splitlines()[-1]


def send(name: str, number: int, driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Sends a signal to a process of Ray by its name, or to all; returns the family."""
    processes = family(driver)
    for process in [*processes, psutil.Process(driver.pid)]:
        if name in ("all", process.name()) or (name == "driver" and process.pid == driver.pid):
            process.send_signal(number)
    return processes


def test_a_raylet_that_dies_in_preparation_ends_the_search_with_a_message(folder):
    write_space(folder, trials=2)
    driver = begin(folder)
    wait_until(says(folder, "scoring the teacher"), driver)
    processes = send("raylet", signal.SIGKILL, driver)
    assert ended(folder, driver, processes) == (
        "lkd-tune: Ray's raylet process has died. Nothing is lost. "
        f"Resume with: lkd-tune search --resume {folder / 'run'}"
    )
    assert driver.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_search_whose_ray_has_died_continues_as_if_it_had_not(folder, name):
    write_space(folder, trials=3, scheduler="none", max_failures=0)
    run = RunFolder(folder / "run")
    driver = begin(folder)
    wait_until(has_checkpoint(run, "0001"), driver)
    processes = send(name, signal.SIGKILL, driver)
    last = ended(folder, driver, processes)
    assert " has died. Nothing is lost. Resume with: lkd-tune search --resume " in last
    assert driver.returncode == 1
    before = what_became(run)
    assert {state for _, state, _ in before.values()} <= {"complete", "running"}

    assert search(folder, "--resume", str(run.path)).wait(PATIENCE_S) == 0
    after = what_became(run)
    assert {state for _, state, _ in after.values()} == {"complete"}
    assert len(after) == 3
    for trial, (digest, _, scores) in before.items():
        assert after[trial][0] == digest
        assert after[trial][2][: len(scores)] == scores


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", ["driver", "all"])
def test_a_signal_ends_a_search_also_if_ray_gets_it_too(folder, name, number):
    write_space(folder, trials=12, scheduler="none")
    driver = begin(folder)
    wait_until(has_checkpoint(RunFolder(folder / "run"), "0000"), driver)
    processes = send(name, number, driver)
    last = ended(folder, driver, processes)
    assert "interrupted" in last
    assert "othing is lost. Resume with: lkd-tune search --resume " in last
    assert driver.returncode == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("raylet", signal.SIGKILL, 1),
        ("gcs_server", signal.SIGKILL, 1),
        ("all", signal.SIGTERM, 130),
        ("driver", signal.SIGINT, 130),
    ],
)
def test_what_happens_while_ray_starts_is_told(folder, name, number, code):
    write_space(folder, trials=2)
    driver = begin(folder)
    first = "gcs_server" if name in ("all", "driver") else name
    wait_until(lambda: any(p.name() == first for p in living(family(driver))), driver)
    time.sleep(0.7)  # so that it was seen
    processes = send(name, number, driver)
    last = ended(folder, driver, processes)
    assert last.startswith("lkd-tune: interrupted. " if code == 130 else "lkd-tune: Ray")
    assert "Nothing is lost. " in last
    assert driver.returncode == code


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_process(folder):
    write_space(folder, trials=2)
    driver = begin(folder)
    wait_until(has_checkpoint(RunFolder(folder / "run"), "0000"), driver)
    processes = family(driver)
    driver.kill()
    driver.wait()
    asked = time.monotonic()
    wait_until(lambda: not living(processes))
    assert time.monotonic() - asked < 15


@pytest.mark.slow
def test_a_search_ends_when_the_head_of_its_cluster_is_lost(folder):
    write_space(folder, trials=2, scheduler="none")
    run = RunFolder(folder / "run")
    with LocalCluster(cpus=2) as cluster:
        driver = begin(folder, "--address", cluster.address, **cluster.env)
        wait_until(has_checkpoint(run, "0000"), driver)
        cluster.kill(cluster.head)
        last = ended(folder, driver, [])
    assert " has not answered for " in last
    assert f"Resume with: lkd-tune search --resume {run.path}" in last
    assert driver.returncode == 1
