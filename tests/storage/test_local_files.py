"""Paths of a space and of a task, made absolute or moved."""

import pytest
import yaml

from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.storage.local_files import with_absolute_paths, with_data_in
from tests.support.tiny import make_space


def test_a_space_that_does_not_depend_on_the_folder(tmp_path, monkeypatch):
    tree = make_space(tmp_path).source.tree
    relative = yaml.safe_load(yaml.safe_dump(tree).replace(f"{tmp_path}/", ""))
    assert relative["task"]["dev"] == "data/dev.csv"
    (tmp_path / "relative.yaml").write_text(yaml.safe_dump(relative))
    monkeypatch.chdir(tmp_path)
    space = load_space(tmp_path / "relative.yaml", ["train.lr=1e-4"])
    found = with_absolute_paths(space)
    assert found.settings.task.dev == str(tmp_path / "data" / "dev.csv")
    assert found.settings.teacher.model == str(tmp_path / "teacher")
    assert found.settings.train.lr == 1e-4
    assert found.source.place(("train", "lr")) == "--set train.lr"
    assert space.settings.task.dev == "data/dev.csv"
    assert with_absolute_paths(found) is found


@pytest.mark.parametrize("only_missing", [False, True])
def test_data_in_another_folder(tmp_path, monkeypatch, only_missing):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\n")
    here = str(tmp_path / "train.csv")
    task = TaskSettings(name="own", train=here, dev="data/dev.csv")
    found = with_data_in(task, tmp_path / "new", only_missing=only_missing)
    assert (found.train, found.dev) == (
        (here, str(tmp_path / "new" / "data" / "dev.csv"))
        if only_missing
        else (str(tmp_path / "new" / "train.csv"), str(tmp_path / "new" / "dev.csv"))
    )
    on_hub = TaskSettings(name="cola")
    assert with_data_in(on_hub, tmp_path) == on_hub
