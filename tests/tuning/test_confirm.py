"""After the trials: other seeds of the best, also on the labels alone, scored on test once."""

from __future__ import annotations

import json

import pytest

from lkd_tune.cli.printing.tables import show_leaderboard
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard, write_leaderboard
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.tiny import LABELS, make_space

pytestmark = pytest.mark.usefixtures("two_cores")


@pytest.mark.slow
def test_several_objectives_a_limit_and_confirmation(tmp_path, capsys):
    space = make_space(
        tmp_path,
        splits=("train", "dev", "test"),
        losses={**LABELS, "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 0.9}},
        train={"lr": {"loguniform": [1e-4, 1e-2]}, "steps": 32},
        search={"trials": 6, "baseline": True, "recipes": ["labels"]},
        objectives=["score", "parameters", "latency_ms"],
        limits=["parameters <= 22e3"],
        confirm={"top": 2, "seeds": 2},
        keep={"top": 1},
    )
    run = RunFolder(tmp_path / "run")
    result = run_search(space, run)
    records = {record.name: record for record in run.read_trials()}
    drawn = [record for record in records.values() if record.is_drawn]
    assert len(drawn) == 6

    # Depth 3 has 23 k parameters: refused without a trial.
    assert {record.spec.student.depth for record in drawn} == {1, 2}
    assert drawn[0].origin == "recipe labels"
    for record in drawn:
        assert record.size is not None
        assert record.size.latency_ms is not None
    assert len([*run.latencies.iterdir()]) == 3  # timed before there was a trial

    confirmed = json.loads(run.confirmation.read_text())["trials"]
    names = [entry["trial"] for entry in confirmed]
    assert run.read_manifest()["baseline"] in names
    assert result.best in names
    assert {path.name for path in run.students.iterdir()} == {*names}
    for entry in confirmed:
        assert entry["seeds"] == [2, 3]  # the search's own is 1
        assert entry["low"] <= entry["mean"] <= entry["high"]
        assert entry["mean"] == pytest.approx(sum(entry["scores"]) / 2)
        for i, score in enumerate(entry["scores"], 1):
            seed = records[f"{entry['trial']}-seed{i}"]
            assert seed.score == score
            assert seed.spec.seed == 1 + i
            tests = json.loads((run.trial(seed.name) / "test.json").read_text())
            assert tests["accuracy"] == entry["test_scores"][i - 1]
    assert not [*(run.path / "trials").glob("*/student")]

    board = write_leaderboard(run)
    assert board.best is not None
    assert board.best.name == result.best
    complete = sum(row.state == "complete" for row in board.rows)
    assert [row.rank for row in board.rows if row.rank] == [*range(1, complete + 1)]
    assert complete > board.count("complete")
    assert any(row.on_front for row in board.rows)
    assert not [row for row in board.rows if "-seed" in row.name]
    capsys.readouterr()
    show_leaderboard(board)
    shown = capsys.readouterr().out
    assert "Pareto front in score, parameters, latency_ms" in shown
    assert "with 2 other seeds" in shown
    assert "over the same student trained on the labels alone" in shown or (
        "The recommended student was trained on the labels alone" in shown
    )
    assert "±" in shown

    # All of it is there; nothing is trained again.
    before = {path: path.stat().st_mtime_ns for path in run.path.glob("trials/*/outcome.json")}
    again = resume_search(run, quiet=True)
    assert again.best == result.best
    assert before == {p: p.stat().st_mtime_ns for p in run.path.glob("trials/*/outcome.json")}
    assert read_leaderboard(run).rows == board.rows
