"""The points that a search starts with."""

from __future__ import annotations

import pytest

from lkd_tune.cli.printing.tables import show_leaderboard
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.starts import Start
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.tuning.preparation.warm_start import _describe_change
from lkd_tune.tuning.tuner import run_search
from tests.support.tiny import make_space

pytestmark = pytest.mark.usefixtures("two_cores")


def test_values_that_are_not_in_the_space_are_listed_with_their_replacements():
    start = Start(
        "runs/a 0007", {"train.lr": 0.00122474, "x": "no"}, {"train.lr": 5e-5, "x": 1, "y": 2}
    )
    lines = [_describe_change(start, name) for name in start.clamped]
    assert lines == ["train.lr 5e-05 (0.00122 instead)", "x 1 (no instead)", "y 2"]


def test_a_search_starts_with_recipes(tmp_path, capsys):
    space = make_space(
        tmp_path,
        losses={"wr_pair": {"loguniform": [0.1, 10]}},
        student={"depth": {"int": [1, 2]}},
        search={"trials": 5, "recipes": ["labels", "tinybert", "ckd"], "scheduler": "none"},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run)
    out = capsys.readouterr().out
    assert (
        "starts with the recipes labels, tinybert (map lower_half)\n" in out
    )  # a quarter of the trials
    records = run.read_trials()
    assert [record.state for record in records] == ["complete"] * 5
    origins = [record.origin for record in records]
    assert origins == ["recipe labels", "recipe tinybert (map lower_half)", *[None] * 3]
    for record, recipe in zip(records, ("labels", "tinybert"), strict=False):
        assert record.spec.losses == LossSettings(recipe=recipe)
        assert record.spec.student.depth == 2
    assert {*records[0].measurements[-1].losses} == {"total", "logits"}
    # They are ranked and kept like others, and the leaderboard names them.
    board = read_leaderboard(run)
    assert {row.name: row.rank for row in board.rows}["0000"] is not None
    assert {record.name for record in records if record.kept} >= {result.best}
    show_leaderboard(board)
    out = capsys.readouterr().out
    assert "recipes: labels " in out
    assert "tinybert" in next(line for line in out.splitlines() if " 0001 " in line)


@pytest.mark.slow
def test_a_search_starts_with_the_best_of_an_earlier_run(tmp_path, capsys):
    first = RunFolder(tmp_path / "first")
    run_search(make_space(tmp_path / "a", search={"trials": 3}), first, quiet=True)
    space = make_space(
        tmp_path / "b",
        losses={"wr_pair": {"loguniform": [0.1, 10]}},
        search={"trials": 4, "recipes": [], "warm_start": [str(first.path)]},
    )
    second = RunFolder(tmp_path / "second")
    run_search(space, second)
    complete = sorted(
        (r for r in first.read_trials() if r.state == "complete"),
        key=lambda r: (-(r.score or 0), r.name),
    )[:3]
    records = second.read_trials()
    for earlier, later in zip(complete, records, strict=False):
        assert later.origin == f"{first.path} {earlier.name}"
        assert later.spec.layer_map == earlier.spec.layer_map
        assert later.spec.losses.wr_pair == earlier.spec.losses.wr_pair
    assert records[-1].origin is None
    assert f"starts with {first.path} {complete[0].name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "message"),
    [(False, "is not a run folder"), (True, "has no complete trial")],
)
def test_a_warm_start_from_nothing_is_refused(tmp_path, make, message):
    earlier = tmp_path / "earlier"
    if make:
        earlier.mkdir()
        (earlier / "manifest.json").write_text("{}")
    space = make_space(tmp_path / "a", search={"warm_start": [str(earlier)]})
    with pytest.raises(SpecError, match=message):
        run_search(space, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
