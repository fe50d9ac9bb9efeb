"""One driver for a run at a time, also if the last one was on a machine that was lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning import lock
from lkd_tune.tuning.lock import locked

HOLDER = """
import sys, time
from lkd_tune.tuning.lock import locked
from lkd_tune.records.run import RunFolder
from pathlib import Path

with locked(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def held(tmp_path):
    """Has another process hold a run for some seconds."""
    processes = []

    def hold(seconds: float) -> RunFolder:
        command = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), str(seconds)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[0].stdout.readline() == "held\n"
        return RunFolder(tmp_path / "run")

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_a_run_that_is_searched_is_refused_until_that_ends(held):
    run = held(60)
    with pytest.raises(SpecError, match="is being searched by another process"), locked(run):
        pass


def test_the_holder_may_take_it_again(held, tmp_path):
    run = RunFolder(tmp_path / "run")
    with locked(run):
        with locked(run):
            pass
        command = [sys.executable, "-c", HOLDER, str(run.path), "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "is being searched" in done.stderr
    held(0)


def test_a_lost_machine_s_lock_is_waited_for(held, capsys):
    run = held(2)
    (run.path / ".driver").write_text("another-machine")
    with locked(run):
        assert "is locked by another-machine; waiting up to 150 s" in capsys.readouterr().err
        assert (run.path / ".driver").read_text() != "another-machine"


def test_the_wait_has_an_end(held, monkeypatch):
    run = held(60)
    (run.path / ".driver").write_text("another-machine")
    monkeypatch.setattr(lock, "_LEASE_S", 0.5)
    with pytest.raises(SpecError, match="is being searched by another process"), locked(run):
        pass


def test_a_folder_that_can_t_be_written_is_refused():
    run = RunFolder(Path("/proc/none/run"))
    with pytest.raises(SpecError, match="none/run: can't be written by the driver"), locked(run):
        pass
