"""What a killed process leaves behind does not stop the next one."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lkd_tune.runtime import deepspeed
from lkd_tune.runtime.deepspeed import op_lock


@pytest.fixture
def mark(tmp_path):
    folder = tmp_path / "py311_cpu" / "deepspeed_shm_comm"
    folder.mkdir(parents=True)
    (folder / "deepspeed_shm_comm.so").touch()
    (folder / "lock").touch()
    return folder / "lock"


def test_ninja_is_always_this_environment_s(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    with op_lock(tmp_path):
        first = os.environ["PATH"]
        assert shutil.which("ninja") == str(Path(sys.executable).parent / "ninja")
    with op_lock(tmp_path):
        assert os.environ["PATH"] == first


def test_an_old_mark_is_removed(tmp_path, mark):
    long_ago = time.time() - 60
    os.utime(mark, (long_ago, long_ago))
    with op_lock(tmp_path):
        assert not mark.exists()


def test_a_fresh_mark_is_waited_for(tmp_path, mark):
    remove = f"import time, os; time.sleep(0.5); os.unlink({str(mark)!r})"
    process = subprocess.Popen([sys.executable, "-c", remove])
    with op_lock(tmp_path):
        assert not mark.exists()
    assert process.wait(10) == 0  # it was there to be removed


def test_a_mark_that_somebody_holds_is_waited_for_however_old(tmp_path, mark):
    """As another program does that compiles the op on a slow machine."""
    long_ago = time.time() - 3600
    os.utime(mark, (long_ago, long_ago))
    hold = f"import os, time; os.open({str(mark)!r}, os.O_RDONLY); print('open', flush=True); "
    hold += f"time.sleep(1); os.unlink({str(mark)!r})"
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with op_lock(tmp_path):
        assert not mark.exists()
    assert process.wait(10) == 0  # it was there to be removed


def test_what_is_still_compiled_has_more_time(tmp_path, mark, monkeypatch):
    (mark.parent / "deepspeed_shm_comm.so").unlink()
    monkeypatch.setattr(deepspeed, "_COMPILING_S", 61.0)
    a_minute_ago = time.time() - 60
    os.utime(mark, (a_minute_ago, a_minute_ago))
    begin = time.time()
    with op_lock(tmp_path):
        assert not mark.exists()
    assert time.time() - begin > 0.5


@pytest.mark.slow
def test_a_trial_starts_where_another_was_killed(tmp_path, mark):
    """With PyTorch's own wait it would stand still for good."""
    real = "import os; from lkd_tune.runtime.process_group import ensure_process_group as join; "
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "py311_cpu")}
    (mark.parent / "deepspeed_shm_comm.so").unlink()
    long_ago = time.time() - 3600
    os.utime(mark, (long_ago, long_ago))
    code = real + "join(); print('joined')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.stdout.endswith("joined\n"), done.stderr
