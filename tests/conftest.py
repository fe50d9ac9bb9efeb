"""Tests leave nothing behind and reach for no network."""

import os
import tempfile
from pathlib import Path

# Before any Hugging Face library is imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Triton's also, when it is imported: without a GPU its kernels are run by Python, on the CPU.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# All temporary files, Ray's sessions too, also of the processes that tests start and kill. A short
# name, as paths of sockets are limited. Workers of the run have it from the process that began it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="lkd-")
    tempfile.tempdir = None
os.environ.setdefault("HF_DATASETS_CACHE", f"{os.environ['TMPDIR']}/datasets")
# Each test sets another. There from the start, no variable has to be added for that: threads of C
# libraries that look at the environment meanwhile may crash when it grows.
os.environ.setdefault("LKD_TUNE_CACHE", f"{os.environ['TMPDIR']}/cache")

import atexit
import contextlib
import shutil
import signal
import sys

import pytest
from hypothesis import settings

# What is registered first is done last: after multiprocessing has removed what it has there.
_at_last = contextlib.ExitStack()
atexit.register(_at_last.close)

# Under nohup it is ignored, in all processes that tests start as well.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Machines are shared; how long an example takes says nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LKD_TUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def two_cores():
    """A Ray of two cores, which files of tests share."""
    from tests.support.rays import shared_ray

    shared_ray()


@pytest.fixture(scope="session")
def finished_run():
    """A finished search of six trials and a baseline, to be read only; `tests/support` has more."""
    from tests.support.finished_run import finished_run

    return finished_run(Path(os.environ["TMPDIR"]) / "finished")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB."""
    from tests.support.small_disk import SmallDisk

    if shutil.which("unshare") is None:
        pytest.skip("no mount namespaces here")
    with SmallDisk(tmp_path / "disk", kb=4096) as disk:
        if not disk.works:
            pytest.skip("no mount namespaces allowed here")
        yield disk


def pytest_collection_modifyitems(items):
    """Puts the long ones first: what is handed out last would keep one worker busy alone."""
    long = (
        "system/", "test_security.py", "jobs/test_client.py", "cluster/", "cli/test_main.py",
        "tuning/execution/", "tuning/test_tuner.py", "distillation/test_engine.py", "tuning/",
        "data/tasks/test_registry.py", "evaluation/test_compare.py",
    )  # fmt: skip
    tests = Path(__file__).parent

    def place(item):
        name = item.path.relative_to(tests).as_posix()
        return next((i for i, start in enumerate(long) if name.startswith(start)), len(long))

    items.sort(key=place)


def pytest_sessionfinish(exitstatus):
    """Removes the temporary files; after a failure they stay, to be looked at."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if exitstatus == pytest.ExitCode.OK:
        _at_last.callback(shutil.rmtree, os.environ["TMPDIR"], ignore_errors=True)
    else:
        print(f"\ntemporary files of this run: {os.environ['TMPDIR']}")
