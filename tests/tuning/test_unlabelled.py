"""Searches on text without labels: what is tried first, what is left out, what the tables show."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lkd_tune.api import load_space
from lkd_tune.records.run import RunFolder
from lkd_tune.results.columns import terminal_columns
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.tuning.tuner import run_search
from tests.support.tiny import BAD, FILLERS, GOOD, make_space_tree

pytestmark = pytest.mark.usefixtures("two_cores")


def _tree(folder: Path, **blocks):
    rng = random.Random(1)
    lines = [" ".join(rng.choices((*GOOD, *BAD, *FILLERS), k=rng.randint(3, 8))) for _ in range(90)]
    tree = make_space_tree(folder, **blocks)
    (folder / "more.txt").write_text("\n".join([*lines, lines[0]]))
    tree["task"]["unlabelled"] = str(folder / "more.txt")
    return tree


def test_a_search_without_any_labelled_training_text(tmp_path, capsys):
    search = {"trials": 4, "recipes": ["labels", "soft_labels", "pkd"], "baseline": True}
    tree = _tree(tmp_path, student={"depth": 2}, search=search)
    tree["task"]["train"] = None
    run = RunFolder(tmp_path / "run")
    result = run_search(load_space(tree), run)
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "leaves out the recipe labels: it needs labels, and without task.train there are" in shown
    )
    assert "more.txt: 90 texts without labels; left out are 1 repeated" in shown
    assert "without task.train there are no labels to train a student on alone" in shown
    records = run.read_trials()
    assert len(records) == 4
    assert records[0].origin == "recipe soft_labels"
    assert all(not record.spec.losses.needs_labels for record in records)
    assert result.best is not None
    board = read_leaderboard(run)
    assert {row.unlabelled for row in board.rows if row.step} == {90}
    assert run.read_manifest()["targets"]["examples"] == 90


def test_what_the_text_brings_is_on_the_leaderboard(tmp_path):
    search = {"trials": 2, "sampler": "grid", "scheduler": "none", "baseline": True}
    train = {"steps": None, "epochs": 2, "unlabelled_share": {"choice": [0, 1]}}
    losses = {"recipe": "soft_labels"}
    tree = _tree(
        tmp_path, student={"depth": 2}, losses=losses, layer_map="skip", search=search, train=train
    )
    run = RunFolder(tmp_path / "run")
    run_search(load_space(tree), run)
    board = read_leaderboard(run)
    rows = {row.name: row for row in board.rows}
    assert {rows[name].unlabelled for name in ("0000", "0001")} == {0, 90}
    assert (rows["0002"].recipe, rows["0002"].unlabelled) == ("labels", 0)
    assert len({row.total_steps for row in board.rows}) == 1
    shown = {column.header_of(board): column for column in terminal_columns(board)}
    assert {shown["unlabelled"].text(row, board) for row in board.rows} == {"0", "90"}
