"""One table of columns: the leaderboard's files, the terminal, the page and trackers read it."""

import ast
import csv
import dataclasses
import inspect
import json

import pytest

from lkd_tune.cli.printing.tables import show_leaderboard
from lkd_tune.config.objectives import OBJECTIVES
from lkd_tune.config.read_space import load_space
from lkd_tune.results import columns
from lkd_tune.results.columns import COLUMNS, Column, Shown, page_columns, terminal_columns
from lkd_tune.results.leaderboard import Row
from lkd_tune.results.leaderboard_files import read_leaderboard, write_leaderboard
from lkd_tune.results.report.page import write_report
from lkd_tune.tuning.trackers.base import tracked
from tests.support.html_page import Page
from tests.support.run_folder import HandMade, full_run

FIELDS = [field.name for field in dataclasses.fields(Row)]


def test_each_field_of_a_row_is_a_column_once():
    assert sorted(column.name for column in COLUMNS) == sorted(FIELDS)


def test_each_field_of_a_row_has_its_meaning_below_it():
    (body,) = (node.body for node in ast.parse(inspect.getsource(Row)).body)
    for field, meaning in zip(body[1::2], body[2::2], strict=True):
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(meaning, ast.Expr)
        assert isinstance(meaning.value, ast.Constant)


def test_files_hold_all_columns_in_the_order_of_a_row(tmp_path):
    run = full_run(tmp_path)
    write_leaderboard(run)
    row = json.loads(run.leaderboard_json.read_text())["rows"][0]
    assert [*row] == FIELDS
    with run.leaderboard_csv.open(newline="") as file:
        (head, *_) = csv.reader(file)
    weights = [f"weight_{name}" for name in row["weights"]]
    assert head == [name for name in FIELDS if name != "weights"] + weights


def test_headers(tmp_path):
    made = HandMade(tmp_path, objectives=["score", "latency_ms", "flops"])
    made.add("0000", 0.5)
    size = {"parameters": 1, "flops": 1, "disk_mb": 1, "latency_ms": 1}
    (made.run.trial("0000") / "size.json").write_text(json.dumps(size))
    found = {"trial": "0000", "seeds": [1, 2], "mean": 0.5, "low": 0.4, "high": 0.6,
             "ties_with_best": True}  # fmt: skip
    made.run.confirmation.write_text(json.dumps({"trials": [found]}))
    board = read_leaderboard(made.run)
    assert [column.header_of(board) for column in terminal_columns(board)] == [
        "", "trial", "score", "mean ± 95 %", "share", "depth", "layer map", "params", "GFLOPs",
        "ms", "seconds", "GiB", "test",
    ]  # fmt: skip
    assert [column.header_of(board) for column in page_columns(board)] == [
        "rank", "trial", "matthews", "mean ± 95 %", "of teacher", "depth", "layer map",
        "parameters", "ms", "time",
    ]  # fmt: skip


def test_what_trackers_log_at_the_end_are_columns():
    logged = {column.name for column in COLUMNS if column.tracked}
    assert logged == {*OBJECTIVES, "wall_s", "gpu_s", "cpu_s"}


def test_each_objective_is_a_column_of_the_terminal():
    shown = {column.name for column in COLUMNS if column.terminal}
    assert {*OBJECTIVES} <= shown


@pytest.fixture
def with_another(monkeypatch):
    """A column more in the table, and nowhere else."""
    shown = Shown("rate", lambda row, board: f"rate {row.lr:.0e}", lambda board: "of teacher")
    another = Column("lr", COLUMNS[0].value, shown, shown, lambda record: 7.0)
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, another))


@pytest.mark.usefixtures("with_another")
def test_the_table_alone_decides_what_is_shown(tmp_path, capsys):
    run = full_run(tmp_path)
    board = read_leaderboard(run)
    show_leaderboard(board)
    head, teacher, first, *_ = capsys.readouterr().out.splitlines()[1:]
    assert head.split()[-1] == "rate"
    assert teacher.rstrip().endswith("of teacher")
    assert f"rate {board.rows[0].lr:.0e}" in first
    page = Page(write_report(run)).text("students")
    assert "rate" in page
    assert f"rate {board.rows[0].lr:.0e}" in page
    assert tracked(run.read_trial("0003"), load_space(run.space)).results["lr"] == 7.0
