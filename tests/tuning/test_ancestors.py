"""Students that start from earlier ones: which, where their weights lie, and that it repeats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lkd_tune.cli.tables import show_leaderboard
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.trial import Ancestor, TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.records.run import BASELINE, RunFolder
from lkd_tune.records.trial_folder import TrialFolder, outcome_of
from lkd_tune.results.leaderboard import read_leaderboard
from lkd_tune.tuning.ablation import ablate
from lkd_tune.tuning.ancestors import (
    best_of_each_map,
    drop_ancestors,
    hold_students,
    nearest_student,
)
from lkd_tune.tuning.best_students import keep_best
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.tiny import make_space, make_space_tree


def _spec(layer_map: tuple[int, ...], ancestor: Ancestor | None = None, **student) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "task": {"name": "tiny", "train": "train.csv", "dev": "dev.csv"},
            "teacher": "t",
            "student": {"depth": len(layer_map) - 1, "init": "nearest", **student},
            "layer_map": {"word": layer_map, "layer": layer_map},
            "ancestor": ancestor,
        }
    )


def _finish(run: RunFolder, name: str, score: float, spec: TrialSpec) -> None:
    folder = TrialFolder(run.trial(name))
    folder.write_spec(spec)
    facts = {"name": name, "score": score, "step": 100, "spec": spec.model_dump(mode="json")}
    with folder.new_student() as draft:
        (draft / "student.json").write_text(json.dumps(facts))
        (draft / "model.safetensors").write_text(f"weights of {name}")
    folder.write_outcome(outcome_of("complete", ResourceSettings(), 1.0))


def _held(run: RunFolder) -> set[str]:
    return {path.name for path in run.ancestors.iterdir()}


def test_the_nearest_of_the_same_shape_is_chosen_though_it_was_not_kept(tmp_path):
    run = RunFolder(tmp_path)
    assert nearest_student(run, _spec((0, 2, 6))) is None
    _finish(run, "0000", 0.9, _spec((0, 5, 6)))
    old = Ancestor(trial="x", folder="", steps=7, distance=1)
    _finish(run, "0001", 0.5, _spec((0, 1, 6), old))
    _finish(run, "0002", 0.5, _spec((0, 2, 4, 6)))
    _finish(run, "0003", 0.5, _spec((0, 2, 6), vocab="trim"))
    _finish(run, "0004", 0.5, _spec((0, 2, 6), init="some/model"))
    hold_students(run)
    keep_best(run, 1)
    found = nearest_student(run, _spec((0, 2, 6)))
    assert found is not None
    # In each of both maps 3 layers from 0000 and 1 from 0001, which had inherited 7 steps.
    assert (found.trial, found.distance, found.steps) == ("0001", 2, 107)
    assert (Path(found.folder) / "model.safetensors").read_text() == "weights of 0001"
    assert nearest_student(run, _spec((0, 2, 6), heads=2)) is None


def test_of_students_with_one_map_the_best_alone_is_held(tmp_path):
    run = RunFolder(tmp_path)
    for name, score in (("0000", 0.5), ("0001", 0.7), ("0002", 0.6)):
        _finish(run, name, score, _spec((0, 2, 6)))
        hold_students(run)
        keep_best(run, 1)
    assert _held(run) == {"0000", "0001"}  # which 0000 was until 0001 came
    assert best_of_each_map(run) == {"0001"}
    weights = [
        folder / "model.safetensors" for folder in (run.student("0001"), run.ancestors / "0001")
    ]
    assert weights[0].samefile(weights[1])  # nothing is stored twice
    (run.ancestors / ".0005").mkdir()  # as a crash leaves it
    drop_ancestors(run, best_of_each_map(run))
    assert _held(run) == {"0001"}


@pytest.fixture(scope="module")
def run(two_cores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nearest")
    space = make_space(
        folder,
        student={"depth": 2, "init": "nearest"},
        losses={"wr_pair": {"loguniform": [0.1, 10]}, "ltr_triple": 0},
        search={"trials": 3, "scheduler": "none", "baseline": True},
        keep={"top": 1},
        confirm={"top": 1, "seeds": 2},
    )
    run = RunFolder(folder / "run")
    run_search(space, run, quiet=True)
    return run


@pytest.mark.slow
def test_a_search_passes_weights_on_and_tells_the_tree(run, capsys):
    records = {record.name: record for record in run.read_trials()}
    drawn = [record for record in records.values() if record.is_drawn]
    assert [record.state for record in drawn] == ["complete"] * 3
    first, *others = drawn
    assert first.spec.ancestor is None
    steps = {first.name: 8}
    for record in others:
        ancestor = record.spec.ancestor
        assert ancestor is not None
        assert ancestor.trial < record.name
        assert ancestor.steps == steps[ancestor.trial]
        steps[record.name] = 8 + ancestor.steps
    rows = {row.name: row for row in read_leaderboard(run).rows}
    assert {name: 8 + rows[name].steps_inherited for name in steps} == steps
    show_leaderboard(read_leaderboard(run))
    assert "8 of 0000" in capsys.readouterr().out
    # What the kept student started from is there, and nothing else.
    (kept,) = run.students.iterdir()
    kept_spec = records[kept.name].spec
    assert _held(run) == ({kept_spec.ancestor.trial} if kept_spec.ancestor else set())
    # Other seeds start from the teacher; the baseline has all the steps that the winner has had.
    for name, record in records.items():
        if not record.is_drawn:
            assert record.spec.ancestor is None, name
    assert records[BASELINE].measurements[-1].total_steps == steps[kept.name]
    assert records[f"{BASELINE}-seed1"].measurements[-1].total_steps == 8


@pytest.mark.slow
def test_a_search_that_goes_on_inherits_from_what_is_kept(run):
    (kept,) = run.students.iterdir()
    again = resume_search(run, quiet=True, overrides=["search.trials=4", "confirm=null"])
    added = run.read_trial("0003")
    assert added.spec.ancestor is not None
    assert added.spec.ancestor.trial in {kept.name, *(_ancestor_of(run, kept.name))}
    facts = ablate(run, quiet=True).facts
    assert facts is not None
    # The winner that inherited stays as it is; it is trained from the teacher beside it.
    winner = run.read_trial(again.best or "")
    alone = run.trial(f"{winner.name}-from-teacher")
    assert alone.exists() == (winner.spec.ancestor is not None)


def _ancestor_of(run: RunFolder, name: str) -> list[str]:
    ancestor = run.read_trial(name).spec.ancestor
    return [ancestor.trial] if ancestor else []


def test_an_inherited_student_repeats_exactly_and_says_what_it_lacks(tmp_path):
    tree = make_space_tree(tmp_path)
    spec = TrialSpec.model_validate(
        {
            "task": tree["task"],
            "teacher": tree["teacher"],
            "student": {"depth": 2, "init": "nearest", "vocab": "trim"},
            "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
            "train": tree["train"],
        }
    )
    folder = tmp_path / "ancestors" / "0000"
    first = list(distill(spec, finish=lambda d: d.save_student(folder)))
    ancestor = Ancestor(trial="0000", folder=str(folder), steps=8, distance=0)
    heir = spec.model_copy(update={"ancestor": ancestor})
    heir = TrialSpec.model_validate_json(heir.to_json())
    with Distillation(heir) as distillation:
        distillation.save_student(tmp_path / "start")
    ours, theirs = (load_file(path / "model.safetensors") for path in (tmp_path / "start", folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    losses = [m.losses for m in distill(heir)]
    assert losses == [m.losses for m in distill(heir)]
    assert losses[0]["total"] < first[0].losses["total"]
    shutil.rmtree(folder)
    with pytest.raises(SpecError, match="trial 0000, which this one starts from, is not in"):
        list(distill(heir))
    with pytest.raises(ValueError, match="an ancestor goes with"):
        TrialSpec.model_validate(heir.model_dump() | {"student": {"depth": 2}})
