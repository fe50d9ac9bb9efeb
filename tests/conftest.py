"""Tests leave nothing behind and reach for no network."""

import os
import tempfile
from pathlib import Path

# Before any Hugging Face library is imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="lkd-tune-datasets-"))

import shutil

import pytest
from hypothesis import settings

# Machines are shared; how long an example takes says nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LKD_TUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def two_cores():
    """A Ray of two cores for a file of tests."""
    import logging

    from lkd_tune.search.cluster import quieten_ray

    quieten_ray()
    import ray

    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


def pytest_collection_modifyitems(items):
    """Puts the long ones first: what is handed out last would keep one worker busy alone."""
    long = ("system/", "test_submission.py", "test_cluster_files.py", "test_several.py", "search/")
    tests = Path(__file__).parent

    def place(item):
        name = item.path.relative_to(tests).as_posix()
        return next((i for i, start in enumerate(long) if name.startswith(start)), len(long))

    items.sort(key=place)


def pytest_sessionfinish():
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
