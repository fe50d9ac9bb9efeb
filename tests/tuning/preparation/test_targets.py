"""The targets that a search stores: of the parts that a trial may compare, and that fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lkd_tune.distillation.targets.vectors import VECTOR_PARTS, vector_folder
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.tuning.preparation.prepare import ensure_targets
from lkd_tune.tuning.tuner import run_search
from tests.support.tiny import make_space

OFF_OR_ON = {"choice": [0, {"weight": {"loguniform": [0.1, 10]}}]}


def _stored(folder, told, **blocks) -> dict[str, bool]:
    """Stores the targets of a space; returns which parts are stored as vectors."""
    space = make_space(folder, **blocks)
    cache, run = folder / "cache", RunFolder(folder / "run")
    update_manifest(run, teacher={"layers": 4})
    view = SimpleNamespace(phase=told.append, note=told.append)
    session = SimpleNamespace(
        space=space, settings=space.settings, run=run, view=view, cache=str(cache), cwd=str(folder)
    )
    worker = SimpleNamespace(run=lambda part, function, *arguments, poll: function(1, *arguments))
    ensure_targets(session, worker, str(folder / "teacher"))
    targets = run.read_manifest()["targets"]
    found = [path for path in (cache / "targets").glob("*") if path.is_dir()]
    files = [file for path in found for file in path.glob("*.npy")]
    assert targets["bytes"] == sum(file.stat().st_size for file in files)
    assert "live" not in targets
    (relations,) = (path for path in found if "-" not in path.name)
    return {part: vector_folder(relations, part).exists() for part in VECTOR_PARTS}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"hidden": OFF_OR_ON}, {"hidden_states": True, "attention": False}),
        (
            {"choice": ["labels", {"recipe": "soft_labels", "attention": OFF_OR_ON}]},
            {"hidden_states": False, "attention": True},
        ),
        ({}, {"hidden_states": False, "attention": False}),
    ],
)
def test_parts_are_stored_if_any_trial_may_compare_them(tmp_path, losses, expected):
    told: list[str] = []
    assert _stored(tmp_path, told, losses=losses) == expected
    assert told == ["storing the teacher's targets"]


@pytest.mark.parametrize(
    ("recipes", "expected"),
    [
        (["labels", "pkd"], {"hidden_states": True, "attention": False}),
        (["tinybert", "labels"], {"hidden_states": True, "attention": True}),
        (["labels", "ckd", "tinybert"], {"hidden_states": False, "attention": False}),
    ],
)
def test_parts_are_stored_for_the_recipes_that_are_tried(tmp_path, recipes, expected):
    search = {"recipes": recipes, "trials": 8}  # two of them are recipes
    assert _stored(tmp_path, [], search=search) == expected


def test_parts_that_do_not_fit_are_named(tmp_path):
    told: list[str] = []
    losses = {"hidden": OFF_OR_ON, "attention": 1}
    # Room for the relations and a part of the rest.
    stored = _stored(tmp_path, told, losses=losses, targets={"max_gb": 3e-4})
    assert stored == {"hidden_states": True, "attention": False}
    assert told[1:] == [
        "with stored attention, targets would exceed targets.max_gb 0.0003; the teacher runs in "
        "trials that compare them"
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_a_search_over_terms_beyond_ckd(tmp_path):
    losses = {"hidden": {"loguniform": [0.1, 10]}, "attention": OFF_OR_ON, "ltr_triple": 0}
    space = make_space(tmp_path, losses=losses, search={"trials": 3, "scheduler": "none"})
    run = RunFolder(tmp_path / "run")
    assert not run_search(space, run).failures
    for record in run.read_trials():
        terms = {name for name, _ in record.spec.losses.active()}
        assert "hidden" in terms
        assert set(record.measurements[-1].losses) == {*terms, "total"}
    for row in read_leaderboard(run).rows:
        assert row.weights["hidden"] > 0
