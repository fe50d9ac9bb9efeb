"""Runs of earlier versions with settings that were removed: read as before, and not continued."""

import json
import shutil

import pytest

import lkd_tune
from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.tuning.ablation import ablate
from tests.support.run_folder import SPACE, full_run

PBT = f"{SPACE}search:\n  scheduler: pbt\n"
NEAREST = SPACE.replace("depth: {int: [2, 4]}", "depth: {int: [2, 4]}\n  init: nearest")


@pytest.fixture
def with_ancestors(tmp_path):
    """A run with `student.init: nearest`: each student but the first started from 0000."""
    run = full_run(tmp_path / "run")
    run.space.write_text(NEAREST)
    for path in [*run.path.glob("trials/*/spec.json"), *run.path.glob("students/*/student.json")]:
        facts = json.loads(path.read_text())
        spec = facts.get("spec", facts)
        first = path.parent.name in ("0000", "baseline")
        folder = str(run.path / "ancestors" / "0000")
        ancestor = {"trial": "0000", "folder": folder, "steps": 30, "distance": 2}
        spec |= {"weight_changes": [], "ancestor": None if first else ancestor}
        spec["student"]["init"] = "nearest"
        path.write_text(json.dumps(facts))
    shutil.copytree(run.student("0000"), run.path / "ancestors" / "0000")
    return run


def test_a_run_with_ancestors_is_read(with_ancestors, called, tmp_path):
    run = with_ancestors
    code, out, _ = called("best", run.path)
    assert (code, str(run.student("0003")) in out) == (0, True)
    assert called("report", run.path)[0] == 0
    assert "0003" in (run.report / "report.html").read_text()
    assert called("export", run.path, "--to", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "1" / "model.safetensors").exists()
    rows = lkd_tune.load_run(run.path).leaderboard()
    assert [row["name"] for row in rows if row["rank"]] == ["0003", "0000", "0005"]
    assert lkd_tune.load_run(run.path).spec("0003").student.init == "teacher"


def test_a_run_with_ancestors_that_has_no_trial_yet_is_read(with_ancestors, called):
    shutil.rmtree(with_ancestors.path / "trials")
    options = "init: {choice: [teacher, nearest]}"
    with_ancestors.space.write_text(NEAREST.replace("init: nearest", options))
    code, out, _ = called("best", with_ancestors.path)
    assert (code, "no trial" in out) == (1, True)


def test_a_run_with_ancestors_is_not_continued(with_ancestors, called):
    code, _, err = called("search", "--resume", with_ancestors.path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{with_ancestors.path} student.init: nearest was removed" in err
    with pytest.raises(SpecError, match=r"student\.init: nearest was removed"):
        ablate(with_ancestors, quiet=True)


def test_a_trial_that_started_from_another_is_not_run_again(with_ancestors, called):
    code, _, err = called("distill", "--spec", with_ancestors.student("0003") / "student.json")
    assert code == 2
    assert "student.json: can't be run again: the student started from that of another" in err


@pytest.mark.parametrize(
    "init", ["nearest", "{choice: [teacher, nearest]}"], ids=["value", "option"]
)
def test_a_new_space_may_not_start_from_ancestors(tmp_path, init):
    path = tmp_path / "s.yaml"
    path.write_text(NEAREST.replace("init: nearest", f"init: {init}"))
    with pytest.raises(SpecError) as refused:
        load_space(path)
    (problem,) = refused.value.problems
    assert str(problem).startswith("s.yaml:5 student.init: nearest was removed: ")
    assert str(problem).endswith("use teacher, random, or a folder or hub id")


@pytest.fixture
def with_population(tmp_path):
    """A run with `search.scheduler: pbt`: the winner went on with other weights, as a copy."""
    run = full_run(tmp_path / "run")
    run.space.write_text(PBT)
    change = {"step": 10, "weights": {"wr_pair": 77.0, "ltr_pair": 0.5}}
    for path in [*run.path.glob("trials/*/spec.json"), *run.path.glob("students/*/student.json")]:
        facts = json.loads(path.read_text())
        spec = facts.get("spec", facts)
        spec |= {"weight_changes": [change] if path.parent.name == "0003" else [], "ancestor": None}
        path.write_text(json.dumps(facts))
    spec = json.loads((run.trial("0003") / "spec.json").read_text())
    decided = {"1": {"0003": {"from": "0000", "spec": spec}}}
    (run.path / "population.json").write_text(json.dumps(decided))
    return run


def test_a_run_with_a_population_is_read(with_population, called, tmp_path):
    run = with_population
    code, out, _ = called("best", run.path)
    assert (code, str(run.student("0003")) in out) == (0, True)
    assert called("report", run.path)[0] == 0
    assert "0003" in (run.report / "report.html").read_text()
    assert called("export", run.path, "--to", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "1" / "model.safetensors").exists()
    (best, *_) = lkd_tune.load_run(run.path).leaderboard()
    # The weights that the trial ended with, as before.
    assert (best["weight_wr_pair"], best["weight_ltr_pair"]) == (77.0, 0.5)


def test_a_run_with_a_population_that_has_no_trial_yet_is_read(with_population, called):
    shutil.rmtree(with_population.path / "trials")
    code, out, _ = called("best", with_population.path)
    assert (code, "no trial" in out) == (1, True)


def test_a_run_with_a_population_is_not_continued(with_population, called):
    code, _, err = called("search", "--resume", with_population.path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{with_population.path} search.scheduler: pbt was removed" in err
    with pytest.raises(SpecError, match=r"search\.scheduler: pbt was removed"):
        ablate(with_population, quiet=True)


def test_a_trial_whose_weights_changed_is_not_run_again(with_population, called):
    code, _, err = called("distill", "--spec", with_population.student("0003") / "student.json")
    assert code == 2
    assert "student.json: can't be run again: the loss weights changed while it trained" in err


def test_a_new_space_may_not_train_a_population(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(PBT)
    with pytest.raises(SpecError) as refused:
        load_space(path)
    (problem,) = refused.value.problems
    assert str(problem).startswith("s.yaml:9 search.scheduler: pbt was removed: ")
    assert str(problem).endswith("use asha, hyperband, median or none")


def test_a_run_that_started_with_the_published_recipe_is_read(tmp_path, called):
    run = full_run(tmp_path / "run")
    run.space.write_text(f"{SPACE}search: {{published_start: false, trials: 4}}\n")
    (run.trial("0000") / "origin").write_text("published")
    for path in run.path.glob("trials/*/spec.json"):
        spec = json.loads(path.read_text())
        del spec["losses"]["recipe"]
        path.write_text(json.dumps(spec))
    code, out, _ = called("best", run.path)
    assert (code, str(run.student("0003")) in out) == (0, True)
    assert called("report", run.path)[0] == 0
    rows = {row["name"]: row for row in lkd_tune.load_run(run.path).leaderboard()}
    assert (rows["0000"]["origin"], rows["0000"]["recipe"]) == ("published", "ckd")
    code, _, err = called("search", "--resume", run.path)
    assert (code, err.count("\n")) == (2, 1)
    assert "search.published_start: published_start was removed" in err
    with pytest.raises(SpecError, match=r"use search\.recipes") as refused:
        load_space(run.space)
    assert len(refused.value.problems) == 1
