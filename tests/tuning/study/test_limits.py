"""What a search is refused, what it is given, and what it may change when it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.source import parse_source
from lkd_tune.config.space import build_space, load_space
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.tuner import resume_search, run_search, write_space
from tests.support.tiny import make_space

pytestmark = pytest.mark.usefixtures("two_cores")


def test_the_time_budget_ends_a_search_that_a_larger_one_goes_on_with(tmp_path):
    space = make_space(
        tmp_path,
        train={"steps": 1500, "evaluations": 9},
        search={"trials": 3, "time_budget": 0.1, "scheduler": "none"},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    assert result.out_of_time
    assert not result.interrupted
    assert result.trials < 3
    assert 6 <= run.read_manifest()["seconds"] < 12
    assert all(record.state != "failed" for record in run.read_trials())


@pytest.mark.slow
def test_what_makes_a_winner_worth_trusting_comes_after_the_time_budget(tmp_path):
    run = RunFolder(tmp_path / "run")
    run_search(make_space(tmp_path, train={"steps": 8}, search={"trials": 1}), run, quiet=True)
    more = ["search.trials=1000", "search.time_budget=0.001"]  # which is used up already
    after = ["confirm={top: 1, seeds: 2}", "search.baseline=true"]
    result = resume_search(run, quiet=True, overrides=[*more, *after])
    assert result.out_of_time
    assert result.trials < 5
    seeds = {entry["trial"]: len(entry["scores"]) for entry in run.read_confirmation()}
    assert seeds == {result.best: 2, "baseline": 2}
    assert run.read_manifest()["finished"] is not None


def test_a_search_stops_before_its_disk_is_full_and_goes_on_when_there_is_room(tmp_path):
    space = make_space(tmp_path, search={"trials": 2, "min_free_gb": 1e9})
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run, quiet=True)
    assert result.disk_full is not None
    assert result.disk_full.startswith(f"the disk of {run.path} on ")
    assert result.disk_full.endswith(" GB free, less than search.min_free_gb (1e+09)")
    assert run.read_manifest()["finished"] is None
    more = resume_search(run, quiet=True, overrides=["search.min_free_gb=0"])
    assert not more.disk_full
    assert more.trials == 2
    assert all(record.state != "failed" for record in run.read_trials())


@pytest.mark.slow
def test_a_teacher_is_trained_first(tmp_path):
    training = {
        "architecture": {"layers": 2, "hidden_size": 32, "heads": 2},
        "steps": 100,
        "lr": 1e-2,
        "batch_size": 16,
    }
    space = make_space(
        tmp_path, teacher={"train": training}, student={"depth": 1}, search={"trials": 1}
    )
    run = RunFolder(tmp_path / "run")
    run_search(space, run, quiet=True)
    teacher = run.read_manifest()["teacher"]
    assert teacher["layers"] == 2
    assert Path(teacher["model"], "model.safetensors").exists()
    assert teacher["dev"]["accuracy"] > 0.9


REFUSED = {
    "resources.cpus=64": "asks for 1 worker(s) with 64 CPU(s) and 0 GPU(s) each, the cluster's "
    "node(s) have 2 CPU(s) and 0 GPU(s)",
    "resources.gpus=1": "asks for 1 worker(s) with 1 CPU(s) and 1 GPU(s) each",
    "resources.workers=4": "asks for 4 worker(s)",
    "student.depth=9": "depth 9 is above the teacher's 4 layers",
    "task.columns.text=words": "has no column 'words'",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_can_not_be_run_is_refused_before_anything_is_written(tmp_path, override):
    make_space(tmp_path)
    space = load_space(tmp_path / "space.yaml", [override])
    run = RunFolder(tmp_path / "run")
    with pytest.raises(SpecError) as caught:
        run_search(space, run, quiet=True)
    assert REFUSED[override] in str(caught.value)
    assert not run.manifest.exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    space = make_space(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(SpecError, match="holds a search already; resume it"):
        run_search(space, RunFolder(tmp_path / "run"), quiet=True)


def test_only_what_keeps_trials_comparable_may_change_in_a_run(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(
        SpecError,
        match=r"--set train.lr=1: can't change in a resumed run; these can: search.trials",
    ):
        resume_search(RunFolder(tmp_path), overrides=["train.lr=1"])


def test_a_space_with_awkward_texts_survives_the_copy_in_the_run(tmp_path):
    text = (
        "task: {name: 'yes', train: a.csv, dev: b.csv, labels: ['5e-5', 'no', '1e3', 'ä: b']}\n"
        "teacher: somewhere\ntrain: {lr: {loguniform: [1e-5, 5e-4]}}\n"
    )
    space = build_space(parse_source(text, "space.yaml"))
    write_space(RunFolder(tmp_path), space)
    again = load_space(RunFolder(tmp_path).space)
    assert again.tree == space.tree
    assert again.settings == space.settings
