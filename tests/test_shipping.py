"""The files a space names: told by absolute paths, or taken along."""

from __future__ import annotations

import pytest

from lkd_tune import shipping
from lkd_tune.shipping import absolute_paths, ship_files, unpack_files
from lkd_tune.spec.errors import SpecError
from tests.tiny import make_space


@pytest.fixture
def space(tmp_path):
    init = {"choice": ["teacher", str(tmp_path / "teacher")]}
    return make_space(tmp_path / "home", student={"depth": 1, "init": init})


def test_files_are_taken_along_and_found_again(tmp_path, space):
    tree = ship_files(space, tmp_path / "job")
    run = tmp_path / "run"
    (tmp_path / "job" / "files").rename(tmp_path / "shipped")
    run.mkdir()
    (tmp_path / "shipped").rename(run / "shipped")
    found = unpack_files(tree, run)
    for split in ("train", "dev"):
        sent = (tmp_path / "home" / "data" / f"{split}.csv").read_bytes()
        assert (run / "shipped" / found["task"][split].rpartition("/")[2]).read_bytes() == sent
        assert found["task"][split].startswith(str(run))
    assert (run / "shipped").joinpath(found["teacher"], "config.json").exists()
    assert found["train"] == space.source.tree["train"]
    assert str(tmp_path / "home") in space.source.tree["teacher"]


def test_what_is_too_large_is_told_with_its_sizes(tmp_path, space, monkeypatch):
    monkeypatch.setattr(shipping, "MOST_BYTES", 1000)
    with pytest.raises(SpecError, match=r"--ship: more than 0 MiB \(.*train.csv 0 MiB"):
        ship_files(space, tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_paths_without_shipping_are_absolute(tmp_path, space, monkeypatch):
    monkeypatch.chdir(tmp_path / "home")
    space.source.tree["task"]["train"] = "data/train.csv"
    space.source.tree["teacher"] = "some/hub-id"
    tree = absolute_paths(space)
    assert tree["task"]["train"] == str(tmp_path / "home" / "data" / "train.csv")
    assert tree["teacher"] == "some/hub-id"
