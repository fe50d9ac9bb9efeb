"""After the trials: the best again with other seeds, the baseline too, each scored on test once."""

from __future__ import annotations

import json

import pytest

from lkd_tune.cli.tables import show_leaderboard
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import BASELINE
from lkd_tune.results.leaderboard_files import read_leaderboard, write_leaderboard
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.tiny import LABELS, make_space

pytestmark = pytest.mark.usefixtures("two_cores")


@pytest.mark.slow
def test_several_objectives_a_limit_and_confirmation(tmp_path, capsys):
    space = make_space(
        tmp_path,
        splits=("train", "dev", "test"),
        losses={**LABELS, "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 1}},
        train={"lr": {"loguniform": [1e-4, 1e-2]}, "steps": 32},
        search={"trials": 6, "baseline": True, "published_start": True},
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
    assert drawn[0].origin == "published"
    assert drawn[0].state == "complete"  # never stopped: the others are compared with it
    for record in drawn:
        assert record.size is not None
        assert record.size.latency_ms is not None
    assert len([*run.latencies.iterdir()]) == 3  # timed before there was a trial

    confirmed = json.loads(run.confirmation.read_text())["trials"]
    names = [entry["trial"] for entry in confirmed]
    assert BASELINE in names
    assert result.best in names
    assert {path.name for path in run.students.iterdir()} == {*names} - {BASELINE}
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
    assert [row.rank for row in board.rows if row.rank] == [*range(1, board.count("complete") + 1)]
    assert any(row.on_front for row in board.rows)
    assert not [row for row in board.rows if "-seed" in row.name]
    capsys.readouterr()
    show_leaderboard(board)
    shown = capsys.readouterr().out
    assert "Pareto front in score, parameters, latency_ms" in shown
    assert "with 2 other seeds" in shown
    assert "without distillation the same student has" in shown
    assert "±" in shown

    # All of it is there; nothing is trained again.
    before = {path: path.stat().st_mtime_ns for path in run.path.glob("trials/*/outcome.json")}
    again = resume_search(run, quiet=True)
    assert again.best == result.best
    assert before == {p: p.stat().st_mtime_ns for p in run.path.glob("trials/*/outcome.json")}
    assert read_leaderboard(run).rows == board.rows


@pytest.mark.slow
def test_a_search_begins_with_the_best_of_an_earlier_run(tmp_path, capsys):
    first = RunFolder(tmp_path / "first")
    run_search(make_space(tmp_path / "a", search={"trials": 3}), first, quiet=True)
    space = make_space(
        tmp_path / "b",
        losses={"wr_pair": {"loguniform": [0.1, 10]}},
        search={"trials": 4, "published_start": False, "warm_start": [str(first.path)]},
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
    from lkd_tune.config.errors import SpecError

    earlier = tmp_path / "earlier"
    if make:
        earlier.mkdir()
        (earlier / "manifest.json").write_text("{}")
    space = make_space(tmp_path / "a", search={"warm_start": [str(earlier)]})
    with pytest.raises(SpecError, match=message):
        run_search(space, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
