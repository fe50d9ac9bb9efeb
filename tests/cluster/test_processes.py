"""Processes that end with the one that has marked them."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from lkd_tune.cluster.processes import MarkedProcesses
from tests.system.driver import living, wait_until

# A shell that starts a process, tells its id, and ends: nobody's child is left.
ORPHAN = "sleep 600 >/dev/null & echo $!"
KILLED = f"""
import os, signal, subprocess
from lkd_tune.cluster.processes import MarkedProcesses
with MarkedProcesses():
    print(subprocess.run(["sh", "-c", {ORPHAN!r}], stdout=subprocess.PIPE).stdout.decode())
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_MarkedProcesses_end_with_the_context_and_no_others_do():
    other = subprocess.Popen(["sleep", "600"])
    with MarkedProcesses():
        told = subprocess.run(["sh", "-c", ORPHAN], stdout=subprocess.PIPE, check=True).stdout
        orphan = psutil.Process(int(told))
        assert living([orphan])
    assert not living([orphan])
    assert living([psutil.Process(other.pid)])
    assert "LKD_TUNE_RAY" not in os.environ
    other.kill()
    other.wait()


def test_they_end_with_the_process_that_marked_them():
    killed = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, check=False)
    assert killed.returncode == -9
    try:
        orphan = psutil.Process(int(killed.stdout))
    except psutil.NoSuchProcess:
        return
    wait_until(lambda: not living([orphan]))
