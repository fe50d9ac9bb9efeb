import csv
import json
import math

import pytest

from lkd_tune.cli.printing.tables import show_leaderboard
from lkd_tune.config.errors import SpecError
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import BASELINE
from lkd_tune.results.leaderboard_files import read_leaderboard, write_leaderboard
from tests.support.run_folder import COSTS, HandMade, full_run


@pytest.fixture
def run(tmp_path):
    return full_run(tmp_path / "run")


def test_order_and_ranks(run):
    rows = read_leaderboard(run).rows
    assert [(row.rank, row.name, row.state) for row in rows] == [
        (1, "0003", "complete"),
        (2, "0000", "complete"),  # of equal scores the earlier one
        (3, "0005", "complete"),
        (None, BASELINE, "complete"),
        (None, "0004", "running"),
        (None, "0001", "stopped"),
        (None, "0002", "failed"),
    ]


def test_a_row(run):
    row = read_leaderboard(run).rows[0]
    spec = run.read_trial("0003").spec
    assert (row.score, row.test_score, row.depth, row.kept) == (0.76, 0.66, 4, True)
    assert row.share == pytest.approx(0.76 / 0.8)
    assert row.word_map == row.layer_map == "-".join(map(str, spec.layer_map.word))
    assert (row.parameters, row.step, row.total_steps) == (1_000_000, 30, 30)
    assert (row.wall_s, row.gpu_s, row.cpu_s, row.samples_per_s) == (60, 120, 240, 130)
    assert row.peak_memory_gib == 0.1  # the largest of all measurements, not the last
    assert row.weights["wr_pair"] == spec.losses.wr_pair.weight
    assert row.weights["wr_triple"] == 10


def test_rows_without_measurements_or_outcome(run):
    rows = {row.name: row for row in read_leaderboard(run).rows}
    failed, running = rows["0002"], rows["0004"]
    assert (failed.score, failed.share, failed.parameters, failed.step) == (None, None, None, 0)
    assert failed.error == "the loss total is nan at or before step 20"
    assert (running.score, running.step, running.wall_s) == (0.5, 20, None)


def test_header(run):
    board = read_leaderboard(run)
    assert (board.task, board.metric, board.teacher_score) == ("acceptability", "matthews", 0.8)
    assert board.best.name == "0003"
    assert board.baseline.score == 0.7
    assert [board.count(state) for state in ("complete", "stopped", "failed", "running")] == [
        3, 1, 1, 1,
    ]  # fmt: skip
    assert board.totals == {"wall_s": 360, "gpu_s": 720, "cpu_s": 1440, "energy_j": 0}


def test_what_was_done_beside_the_trials_counts(tmp_path):
    made = HandMade(tmp_path, costs=COSTS)
    made.add("0000", 0.5)
    board = write_leaderboard(made.run)
    trials = {"wall_s": 60, "gpu_s": 120, "cpu_s": 240, "energy_j": 0}
    assert board.costs == {"trials": trials, **COSTS}
    totals = {"wall_s": 180, "gpu_s": 300, "cpu_s": 720, "energy_j": 36000}
    assert board.totals == json.loads(made.run.leaderboard_json.read_text())["totals"] == totals


@pytest.mark.parametrize(
    ("teacher", "score", "share"),
    [
        (0.8, 0.4, 0.5),
        (0.5, 0.6, 1.2),
        (0.8, -0.1, 0.0),
        (0.0, 0.4, None),
        (-0.2, 0.4, None),
        (-0.2, -0.1, None),
        (None, 0.4, None),
    ],
)
def test_share(tmp_path, teacher, score, share):
    dev = {} if teacher is None else {"matthews": teacher}
    made = HandMade(tmp_path, teacher={"model": "t", "layers": 6, "parameters": 1, "dev": dev})
    made.add("0000", score)
    assert read_leaderboard(made.run).rows[0].share == share


def test_a_run_that_has_just_begun(tmp_path):
    board = read_leaderboard(HandMade(tmp_path, teacher=None).run)
    assert (board.rows, board.best, board.baseline, board.teacher_score) == ([], None, None, None)
    assert write_leaderboard(HandMade(tmp_path, teacher=None).run).rows == []


def test_a_run_interrupted_before_its_first_trial_names_task_metric_and_teacher(tmp_path, capsys):
    board = read_leaderboard(HandMade(tmp_path).run)
    assert (board.task, board.metric, board.teacher_score) == ("acceptability", "matthews", 0.8)
    show_leaderboard(board)
    said = capsys.readouterr().out
    assert "acceptability: matthews on dev" in said
    assert "trials: none yet; 0 s in total" in said


def test_no_run_folder(tmp_path):
    with pytest.raises(SpecError, match="is not a run folder"):
        read_leaderboard(RunFolder(tmp_path))


def test_files(run):
    write_leaderboard(run)
    with run.leaderboard_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows][:2] == ["0003", "0000"]
    assert float(rows[0]["score"]) == 0.76
    assert float(rows[0]["weight_wr_triple"]) == 10
    assert rows[0]["error"] == ""
    facts = json.loads(run.leaderboard_json.read_text())
    assert facts["rows"][0]["name"] == "0003"
    assert facts["teacher"]["dev"]["matthews"] == 0.8
    assert facts["manifest"]["versions"] == {"lkd_tune": "0.1.0"}
    assert facts["totals"]["gpu_s"] == 720


def test_reading_is_the_same_after_writing(run):
    before = read_leaderboard(run)
    write_leaderboard(run)
    assert read_leaderboard(run) == before


def test_different_maps_are_both_shown(tmp_path):
    made = HandMade(tmp_path)
    spec = made.add("0000", 0.5)
    layer_map = spec.layer_map.model_copy(update={"word": (0, 1, 2, 6), "layer": "random"})
    made.add("0001", 0.6, like=spec.model_copy(update={"layer_map": layer_map}))
    row = read_leaderboard(made.run).rows[0]
    assert (row.word_map, row.layer_map) == ("0-1-2-6", "random")


def test_json_holds_no_nan(run):
    write_leaderboard(run)

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(run.leaderboard_json.read_text(), parse_constant=refuse)
    assert math.isfinite(read_leaderboard(run).rows[0].score)
