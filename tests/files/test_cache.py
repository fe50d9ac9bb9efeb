"""Entries of the cache: built once, by the first process that asks for them."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lkd_tune.files.cache import cache_dir, get_or_build


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LKD_TUNE_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("LKD_TUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "lkd_tune"


def test_an_entry_is_built_once(tmp_path):
    built = []

    def build(draft):
        time.sleep(0.1)
        draft.mkdir()
        (draft / "data").write_text("content")
        built.append(draft)

    def ask(_):
        return get_or_build(tmp_path / "tokens" / "key", build, "the tokens")

    with ThreadPoolExecutor(4) as pool:
        entries = {*pool.map(ask, range(8))}
    assert entries == {tmp_path / "tokens" / "key"}
    assert len(built) == 1
    assert (tmp_path / "tokens" / "key" / "data").read_text() == "content"


def test_a_failed_build_leaves_nothing(tmp_path):
    def build(draft):
        draft.write_text("half")
        raise KeyError

    entry = tmp_path / "scores.npz"
    with pytest.raises(KeyError):
        get_or_build(entry, build, "the scores")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    get_or_build(entry, lambda draft: draft.write_text(draft.suffix), "the scores")
    assert entry.read_text() == ".npz"


def test_an_entry_that_is_not_complete_is_built_again(tmp_path):
    entry = tmp_path / "targets"
    (entry / "old").mkdir(parents=True)

    def build(draft):
        assert not entry.exists()  # there may not be room for both
        draft.mkdir()
        (draft / "facts.json").touch()

    for _ in range(2):
        get_or_build(
            entry, build, "the targets", is_complete=lambda at: (at / "facts.json").exists()
        )
    assert [path.name for path in entry.iterdir()] == ["facts.json"]
