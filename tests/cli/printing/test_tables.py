import re

import pytest
from rich.console import Console

from lkd_tune.cli.printing.summary import summary_lines
from lkd_tune.cli.printing.tables import show_best, show_leaderboard, show_space
from lkd_tune.config.read_space import build_space
from lkd_tune.config.reference import settings_reference
from lkd_tune.config.source import parse_source
from lkd_tune.records.trial_record import BASELINE, LABELS_ALONE
from lkd_tune.results.leaderboard_files import read_leaderboard
from tests.support.run_folder import COSTS, HandMade, full_run


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_summary(tmp_path):
    lines = summary_lines(read_leaderboard(full_run(tmp_path)))
    assert lines == [
        "Best student: matthews 0.760, 95% of the teacher's 0.800 with 50% of its parameters, on "
        "test 0.660. Distillation gains +0.060 over the same student trained on the labels alone "
        "(trial baseline): 0.760 against 0.700, one seed each; on test 0.660 against 0.600.",
        f"the best student is in {tmp_path}/students/0003",
        "trials: 3 complete, 1 stopped early, 1 failed, 1 unfinished; "
        "6 min in total, 0.20 GPU-hours on Some CPU",
        "0002 failed: the loss total is nan at or before step 20",
    ]


@pytest.mark.usefixtures("narrow")
def test_what_the_teacher_cost_is_shown(tmp_path, capsys):
    made = HandMade(tmp_path, costs=COSTS)
    made.add("0000", 0.5)
    show_leaderboard(read_leaderboard(made.run))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["teacher", "0.800", "6", "2.0", "M", "100", "0.700"]
    at = next(i for i, line in enumerate(lines) if line.startswith("trials: "))
    assert lines[at].endswith("60 s in total, 0.03 GPU-hours on Some CPU")
    assert lines[at + 1 :] == [
        "cost of the teacher: 1 min 40 s, 0.05 GPU-hours, 0.01 kWh",
        "cost of the winner's score on test: 20 s",
        "cost of the whole run: 3 min, 0.08 GPU-hours, 0.01 kWh",
    ]


def test_a_narrow_terminal_leaves_out_what_matters_least(tmp_path, capsys, monkeypatch):
    run = full_run(tmp_path)
    heads = {}
    for width in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(Console, "is_terminal", True)
        show_leaderboard(read_leaderboard(run))
        _, head, *_ = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
        heads[width] = set(head.split())
    assert heads[60] < heads[80] <= heads[200]
    assert {"trial", "score", "test"} <= heads[60]
    assert heads[200] - heads[60] >= {"GiB", "seconds"}


@pytest.mark.parametrize(("score", "told"), [(0.9, True), (0.8, False), (0.7, False)])
def test_a_teacher_that_plain_training_beats_is_reported(tmp_path, score, told):
    made = HandMade(tmp_path)
    made.add("0000", 0.7)
    made.add(BASELINE, score)
    lines = summary_lines(read_leaderboard(made.run))
    assert (
        any("is better than the teacher (0.800): train the teacher longer" in x for x in lines)
        == told
    )


def test_summary_without_a_finished_trial(tmp_path):
    made = HandMade(tmp_path, teacher=None)
    made.add("0000", 0.7, None, step=20)
    assert summary_lines(read_leaderboard(made.run))[0].startswith("trials: 1 unfinished")


@pytest.mark.usefixtures("narrow")
def test_a_narrow_terminal_cuts_no_number(tmp_path, capsys):
    show_leaderboard(read_leaderboard(full_run(tmp_path)))
    out = capsys.readouterr().out
    assert "…" not in out
    lines = out.splitlines()
    assert lines[1].split() == [
        "trial", "score", "share", "depth", "layer", "map", "params", "seconds", "GiB", "test",
    ]  # fmt: skip
    teacher, first = lines[2].split(), lines[3].split()
    assert teacher == ["teacher", "0.800", "6", "2.0", "M", "0.700"]
    assert first[:5] == ["1", "0003", "0.760", "95%", "4"]
    assert lines[6].split()[:2] == ["baseline", "0.700"]


def test_a_width_of_its_own_is_shown(tmp_path, capsys):
    made = HandMade(tmp_path)
    wide = made.add("0000", 0.7, depth=3)
    narrow = {"hidden_size": 192, "heads": 6, "intermediate_size": 768}
    student = wide.student.model_copy(update=narrow)
    made.add("0001", 0.75, like=wide.model_copy(update={"student": student}))
    board = read_leaderboard(made.run)
    show_leaderboard(board)
    assert "3 × 192" in capsys.readouterr().out
    show_best(board)
    assert "192 hidden, 6 heads, 768 feed-forward" in capsys.readouterr().out
    assert [row.hidden_size for row in board.rows] == [192, None]


def test_many_trials_are_cut_short_but_for_the_comparison(tmp_path, capsys):
    made = HandMade(tmp_path, baseline="0023")
    for number in range(23):
        made.add(f"{number:04}", number / 100)
    made.add("0023", 0.001, origin=LABELS_ALONE)
    show_leaderboard(read_leaderboard(made.run))
    out = capsys.readouterr().out
    assert "… and 3 more in leaderboard.csv" in out
    assert ["23", "0023", "labels", "0.001"] in [line.split()[:4] for line in out.splitlines()]
    assert "0022" in out
    assert "0002" not in out


def test_brackets_in_an_error_are_no_markup(tmp_path, capsys):
    made = HandMade(tmp_path)
    made.add("0000", None, "failed", error="no [bold] thing in [/tmp]")
    show_leaderboard(read_leaderboard(made.run))
    assert "no [bold] thing in [/tmp]" in capsys.readouterr().out


def test_best(tmp_path, capsys):
    show_best(read_leaderboard(full_run(tmp_path)))
    out = capsys.readouterr().out
    assert "Distillation gains +0.060 over the same student trained on the labels alone" in out
    assert f"{tmp_path}/students/0003" in out
    assert "0.800 (the student keeps 95.0%)" in out
    assert "1,000,000" in out


def test_no_best_yet(tmp_path, capsys):
    made = HandMade(tmp_path)
    made.add("0000", 0.7, None, step=20)
    show_best(read_leaderboard(made.run))
    assert "is complete yet (1 running)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "expected"),
    [("{lr: {uniform: [1, 2]}}", "continuous; 16 trials"), ("{lr: 1}", "25 different trials; 16")],
)
def test_space(train, expected, capsys):
    text = "task: cola\nteacher: t\nlayer_map: monotone\nstudent: {depth: {int: [2, 4]}}\n"
    show_space(build_space(parse_source(f"{text}train: {train}", "s.yaml")), 6)
    out = capsys.readouterr().out
    assert expected in out
    assert "depth 2: 5, depth 3: 10, depth 4: 10" in out
    assert "integers 2 to 4" in out


def test_every_setting_is_in_the_reference():
    rows = {key: (kind, default, meaning) for key, kind, default, meaning in settings_reference()}
    assert rows["train.lr"] == ("number", "5e-05", "Peak learning rate.")
    assert rows["task.name"][1] == "needed"
    assert rows["search.scheduler"][:2] == ("asha, hyperband, median, none", "asha")
    assert rows["objectives"][1] == "score"
    assert rows["losses.wr_triple.window"][1] == "21"
    assert rows["teacher.train.architecture.layers"][0] == "integer"
    assert rows["keep.top"][1] == "3"
