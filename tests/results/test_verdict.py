"""Whether distillation was worth it, in words."""

from __future__ import annotations

import json

import pytest

from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import ModelSize
from lkd_tune.records.seed_stats import summarise_seeds
from lkd_tune.records.trial_record import LABELS_ALONE
from lkd_tune.results.leaderboard_files import read_leaderboard, write_leaderboard
from lkd_tune.results.verdict import distillation_verdict, gain_of, verdict
from tests.support.run_folder import HandMade, full_run
from tests.support.tiny import LABELS

ADVICE = "Try longer training (train.epochs), more text, or another teacher."


@pytest.fixture
def made(tmp_path):
    return HandMade(tmp_path, baseline="0001")


def confirm(made, **scores):
    """Writes the scores of other seeds, by trial."""
    by_seed = {name.strip("_"): dict(enumerate(own)) for name, own in scores.items()}
    entries = [entry.model_dump() for entry in summarise_seeds(by_seed, {}, {})]
    write_atomically(made.run.confirmation, json.dumps({"trials": entries}))


def test_one_seed_each(made):
    made.add("0001", 0.70, like=made.add("0000", 0.76), origin=LABELS_ALONE)
    assert distillation_verdict(read_leaderboard(made.run)) == (
        "Distillation gains +0.060 over the same student trained on the labels alone (trial 0001): "
        "0.760 against 0.700, one seed each."
    )


@pytest.mark.parametrize(
    ("labels", "end"),
    [
        ([0.70, 0.71, 0.72], "distinguishable (Welch's t-test, p ≤ 0.05)."),
        ([0.60, 0.71, 0.82], "indistinguishable (Welch's t-test, p > 0.05)."),
    ],
)
def test_means_of_other_seeds(made, labels, end):
    made.add("0001", 0.9, like=made.add("0000", 0.8), origin=LABELS_ALONE)
    confirm(made, _0000=[0.78, 0.79, 0.80], _0001=labels)
    board = read_leaderboard(made.run)
    assert [row.name for row in board.rows] == ["0000", "0001"]
    gain = gain_of(board)
    assert gain.value == pytest.approx(0.08)
    assert gain.low < 0.08 < gain.high
    assert (gain.low > 0) == gain.is_clear
    text = distillation_verdict(board)
    assert "0.790 against 0.710, means of 3 other seeds (95 % interval of the gain: " in text
    assert text.endswith(f"; the two are statistically {end}")


def test_the_labels_alone_are_best(made):
    made.add("0001", 0.81, like=made.add("0000", 0.596), origin=LABELS_ALONE)
    board = write_leaderboard(made.run)
    assert distillation_verdict(board) == (
        "The best student was trained on the labels alone: no distilled student was better here "
        f"(the best of them, trial 0000, has 0.596). {ADVICE}"
    )
    assert (board.best.name, board.best.rank, board.count("complete")) == ("0001", 1, 1)
    assert json.loads(made.run.leaderboard_json.read_text())["verdict"] == verdict(board)


def test_nothing_is_distilled(made):
    losses = LossSettings.model_validate(LABELS)
    made.add("0000", 0.6, like=made._draw("0000", 3).model_copy(update={"losses": losses}))
    assert distillation_verdict(read_leaderboard(made.run)) == (
        "The best student was trained on the labels alone, as were all complete students of this "
        "run."
    )


def test_the_logits_alone_and_a_comparison_with_an_earlier_winner(made):
    losses = LossSettings.model_validate({**LABELS, "logits": 1})
    soft = made._draw("0002", 4).model_copy(update={"losses": losses})
    made.add("0001", 0.6, like=made.add("0000", 0.5), origin=LABELS_ALONE)
    made.add("0002", 0.7, like=soft)
    assert distillation_verdict(read_leaderboard(made.run)).startswith(
        "Distillation of the logits alone gains +0.100 over the best student trained on the labels "
        "alone (trial 0001): 0.700 against 0.600"
    )


def test_a_run_of_an_earlier_version_whose_baseline_is_better(tmp_path):
    made = HandMade(tmp_path)
    made.add("baseline", 0.81, like=made.add("0000", 0.596))
    board = read_leaderboard(made.run)
    assert (board.best.name, board.baseline.rank) == ("0000", None)
    assert distillation_verdict(board) == (
        "Distillation gains nothing over the same student trained on the labels alone (trial "
        f"baseline): 0.596 against 0.810, one seed each. {ADVICE}"
    )


def test_nothing_to_compare_with(made, tmp_path):
    assert distillation_verdict(read_leaderboard(made.run)) == ""
    made.add("0000", 0.5)
    made.add("0001", 0.4, None, origin=LABELS_ALONE)
    assert distillation_verdict(read_leaderboard(made.run)) == ""
    assert distillation_verdict(read_leaderboard(full_run(tmp_path / "other"))) != ""


def test_of_several_objectives_it_is_about_the_recommended_student(tmp_path):
    made = HandMade(tmp_path, baseline="0001", objectives=["score", "parameters"])
    made.add("0001", 0.8, like=made.add("0000", 0.6), origin=LABELS_ALONE)
    for name in ("0000", "0001"):
        size = ModelSize(parameters=10, flops=10, disk_mb=1.0)
        write_atomically(made.run.trial(name) / "size.json", size.model_dump_json())
    board = read_leaderboard(made.run)
    # Better in one objective and equal in the other: the distilled student is off the front.
    assert [row.name for row in board.rows if row.on_front] == ["0001"]
    assert distillation_verdict(board) == (
        "The recommended student was trained on the labels alone: no distilled student is nearer "
        f"to the ideal point here (the next, trial 0000, has 0.600). {ADVICE}"
    )


def test_all_of_it_is_one_paragraph(tmp_path):
    board = read_leaderboard(full_run(tmp_path / "run"))
    assert verdict(board) == (
        "Best student: matthews 0.760, 95% of the teacher's 0.800 with 50% of its parameters, on "
        "test 0.660. " + distillation_verdict(board)
    )
    assert distillation_verdict(board).endswith("one seed each; on test 0.660 against 0.600.")


@pytest.mark.parametrize(
    ("vocab", "embeddings", "told"),
    [("teacher", 670_000, True), ("trim", 670_000, False), ("teacher", 300_000, False)],
)
def test_large_embeddings_are_told_with_the_remedy(made, vocab, embeddings, told):
    spec = made._draw("0000", 3)
    student = spec.student.model_copy(update={"vocab": vocab})
    made.add("0000", 0.7, like=spec.model_copy(update={"student": student}))
    size = ModelSize(parameters=10**6, embedding_parameters=embeddings, flops=1, disk_mb=1)
    write_atomically(made.run.trial("0000") / "size.json", size.model_dump_json())
    said = verdict(read_leaderboard(made.run))
    assert ("67% of its parameters are embeddings: `student.vocab: trim` keeps" in said) == told


@pytest.mark.parametrize(
    ("rows", "told"), [(90, "dev has 90 rows: differences below about 0.07"), (20000, None)]
)
def test_a_small_dev_is_told_with_the_difference_by_chance(made, rows, told):
    made.add("0000", 0.7)
    board = read_leaderboard(made.run)
    board.teacher["dev_rows"] = rows
    assert ("may be chance" in verdict(board)) == (told is not None)
    assert told is None or told in verdict(board)
