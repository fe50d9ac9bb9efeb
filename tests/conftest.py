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
