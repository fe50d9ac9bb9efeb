"""The files a space names: told by absolute paths, or taken along."""

from __future__ import annotations

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.jobs import uploads
from lkd_tune.jobs.uploads import differing_files, ship_files, unpack_files
from lkd_tune.storage.local_files import absolute_paths
from tests.support.tiny import make_space


@pytest.fixture
def space(tmp_path):
    init = {"choice": ["teacher", str(tmp_path / "home" / "teacher")]}
    return make_space(tmp_path / "home", student={"depth": 1, "init": init})


def test_files_are_taken_along_and_found_again(tmp_path, space):
    (tree,) = ship_files([space], tmp_path / "job")
    run = tmp_path / "run"
    (tmp_path / "job" / "files").rename(tmp_path / "shipped")
    run.mkdir()
    (tmp_path / "shipped").rename(run / "shipped")
    found = unpack_files(tree, run)
    for split in ("train", "dev"):
        sent = (tmp_path / "home" / "data" / f"{split}.csv").read_bytes()
        assert (run / "shipped" / found["task"][split].rpartition("/")[2]).read_bytes() == sent
        assert found["task"][split].startswith(str(run))
    assert (run / "shipped").joinpath(found["teacher"]["model"], "config.json").exists()
    assert found["student"]["init"]["choice"] == ["teacher", found["teacher"]["model"]]
    assert found["train"] == space.source.tree["train"]
    assert str(tmp_path / "home") in space.source.tree["teacher"]["model"]


def test_what_is_too_large_is_reported_with_its_sizes(tmp_path, space, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 1000)
    with pytest.raises(SpecError, match=r"--ship: more than 0 MiB \(.*train.csv 0 MiB"):
        ship_files([space], tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_paths_without_shipping_are_absolute(tmp_path, space, monkeypatch):
    monkeypatch.chdir(tmp_path / "home")
    space.source.tree["task"]["train"] = "data/train.csv"
    space.source.tree["teacher"] = "some/hub-id"
    (tree,) = absolute_paths([space])
    assert tree["task"]["train"] == str(tmp_path / "home" / "data" / "train.csv")
    assert tree["teacher"] == "some/hub-id"


@pytest.mark.parametrize("written", [str, lambda file: {"split": file, "examples": 5}])
def test_text_without_labels_is_found(tmp_path, space, monkeypatch, written):
    monkeypatch.chdir(tmp_path / "home")
    (tmp_path / "home" / "more.txt").write_text("a text")
    space.source.tree["task"]["unlabelled"] = written("more.txt")
    (tree,) = absolute_paths([space])
    assert tree["task"]["unlabelled"] == written(str(tmp_path / "home" / "more.txt"))


def test_words_and_splits_are_no_paths(tmp_path, space, monkeypatch):
    """Folders that happen to have their names are not what a space means by them."""
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "random", "train", "validation"):
        (tmp_path / name).mkdir()
    tree = space.source.tree
    words = ["teacher", "random"]
    tree["task"] = {"name": "mine", "data": "of/hub", "train": "train", "dev": "validation"}
    tree["student"]["init"] = {"choice": words}
    (found,) = absolute_paths([space])
    assert found["task"] == tree["task"]
    assert found["student"]["init"] == {"choice": words}
    tree["student"]["init"] = "teacher"
    assert absolute_paths([space])[0]["student"]["init"] == "teacher"


def test_all_that_a_space_names_is_found(tmp_path, space, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a/trials/0000/checkpoint-1", "runs/a/students/0000", "mlm", "start"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/a/manifest.json", "runs/a/trials/0000/spec.json"):
        (tmp_path / name).write_text("{}")
    for name in ("runs/a/students/0000/w", "runs/a/trials/0000/checkpoint-1/w", "mlm/w"):
        (tmp_path / name).write_text("w")
    tree = space.source.tree
    tree["search"]["warm_start"] = ["runs/a", "s3://bucket/runs/b"]
    tree["task"]["augment"] = {"model": "mlm"}
    tree["evaluate_on"] = {"task": {"name": "x", "dev": "home/data/dev.csv"}}
    tree["student"] = {"choice": [{"depth": 1}, {"depth": 2, "init": "start"}]}
    (found,) = absolute_paths([space])
    assert found["search"]["warm_start"] == [str(tmp_path / "runs" / "a"), "s3://bucket/runs/b"]
    assert found["task"]["augment"]["model"] == str(tmp_path / "mlm")
    assert found["evaluate_on"]["task"]["dev"] == str(tmp_path / "home" / "data" / "dev.csv")
    assert found["student"]["choice"][1]["init"] == str(tmp_path / "start")
    # Of an earlier run what a search reads of it, and not its weights.
    (sent,) = ship_files([space], tmp_path / "job")
    folder = tmp_path / "job" / "files" / sent["search"]["warm_start"][0].partition(":")[2]
    taken = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert taken == ["manifest.json", "trials/0000/spec.json"]


def test_an_ignore_file_leaves_nothing_out(tmp_path, space):
    teacher = tmp_path / "home" / "teacher"
    for name in (".gitignore", ".rayignore"):
        (teacher / name).write_text("*.safetensors\n")
    (tree,) = ship_files([space], tmp_path / "job")
    sent = tmp_path / "job" / "files" / tree["teacher"]["model"].partition(":")[2]
    assert sorted(path.name for path in sent.iterdir()) == sorted(
        path.name for path in teacher.iterdir() if not path.name.startswith(".")
    )


def test_what_several_spaces_name_is_taken_once(tmp_path, space):
    other = load_space(tmp_path / "home" / "space.yaml", ["task.train=of.csv"])
    first, second = ship_files([space, other], tmp_path / "job")
    assert first["teacher"] == second["teacher"]
    assert second["task"]["train"] == "of.csv"  # is not here
    assert len([*(tmp_path / "job" / "files").iterdir()]) == 3


def test_files_that_differ_are_named(tmp_path, space):
    ship_files([space], tmp_path / "a")
    ship_files([space], tmp_path / "b")
    assert differing_files(tmp_path / "a", tmp_path / "b") == []
    changed = next((tmp_path / "b").rglob("*train.csv"))
    changed.write_text(changed.read_text().swapcase())
    assert differing_files(tmp_path / "a", tmp_path / "b") == [
        str(changed.relative_to(tmp_path / "b"))
    ]
