"""A folder for a run and a cache that its drivers share."""

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LKD_TUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path
