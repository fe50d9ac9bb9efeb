"""Two models side by side: intervals, agreement, and their differing predictions."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from lkd_tune.cli.main import app
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.teacher import TeacherTraining
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.evaluation.compare import compare_models
from lkd_tune.evaluation.scoring import evaluate_model
from tests.support.kinds_data import make_task
from tests.support.run_folder import run_with_student


def _trained(task, folder, steps, seed=0):
    small = {"layers": 1, "hidden_size": 16, "heads": 2, "init_std": 0.1, "dropout": 0}
    training = TeacherTraining(
        architecture=small, steps=steps, batch_size=32, lr=5e-3, evaluations=1, seed=seed
    )
    return str(train_teacher(task, training, cache=folder))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Returns a task, an untrained model, a trained one, and a cache."""
    folder = tmp_path_factory.mktemp("compare")
    task = make_task(folder / "data", "classification", rows=200)
    return task, _trained(task, folder, 2), _trained(task, folder, 150), folder


def test_a_trained_model_is_significantly_better_than_an_untrained_one(pair):
    task, poor, good, cache = pair
    found = compare_models((poor, good), task, cache=cache)
    a, b = found.sides
    scores = [evaluate_model(model, task, cache=cache)["dev"]["accuracy"] for model in (poor, good)]
    assert [a.score, b.score] == pytest.approx(scores)
    assert found.gain == pytest.approx(b.score - a.score)
    assert 0 < found.low < found.gain < found.high
    for side in found.sides:
        assert side.low <= side.score <= side.high
        assert side.size.latency_ms > 0
    # The interval of an accuracy is about that of a binomial share.
    width = 2 * 1.96 * np.sqrt(a.score * (1 - a.score) / 200)
    assert a.high - a.low == pytest.approx(width, rel=0.2)
    assert len(found.differences) == min(10, round(200 * (1 - found.agreement)))
    for difference in found.differences:
        assert difference.answers[0] != difference.answers[1]
        assert difference.label in ("good", "bad")


def test_a_model_does_not_differ_from_itself(pair):
    task, _, good, cache = pair
    found = compare_models((good, good), task, cache=cache)
    assert (found.gain, found.low, found.high, found.agreement) == (0, 0, 0, 1)
    assert found.differences == []


@pytest.mark.parametrize(
    "kind", ["regression", "multi_label", "tagging", "question_answering", "extractive_summary"]
)
def test_other_kinds(kind, tmp_path):
    task = make_task(tmp_path / "data", kind, rows=64)
    models = tuple(_trained(task, tmp_path, steps) for steps in (1, 120))
    found = compare_models(models, task, cache=tmp_path)
    assert found.low <= found.gain <= found.high
    assert found.examples == 64
    assert (found.agreement is None) == (kind == "regression")
    assert 0 < len(found.differences) <= 10
    for difference in found.differences:
        assert difference.answers[0] != difference.answers[1]


def test_a_kind_without_predictions_for_rows_is_refused(tmp_path):
    task = make_task(tmp_path, "masked_lm", rows=8)
    with pytest.raises(SpecError, match="masked_lm has no predictions for rows of the data"):
        compare_models(("a", "b"), task, cache=tmp_path)


@pytest.mark.slow
def test_the_command(pair):
    task, poor, good, _ = pair
    command = [sys.executable, "-m", "lkd_tune.cli", "compare", poor, good, "--data", task.dev]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert ": significant" in done.stdout
    assert "same answer for" in done.stdout
    rows = {line[:16].strip(): line[16:].split() for line in done.stdout.splitlines()}
    peaks = [float(mb) for mb in rows["peak memory, MB"]]
    own = [float(mb) for mb in rows["less libraries"]]
    assert all(100 < peak < 3000 for peak in peaks)
    assert all(0 < mb < 500 for mb in own)


def test_a_run_alone_is_its_teacher_and_its_best_student(pair, tmp_path, monkeypatch):
    task, poor, good, _ = pair
    run = run_with_student(tmp_path / "run", task, poor)
    facts = json.loads(run.manifest.read_text())
    facts["teacher"]["model"] = good
    run.manifest.write_text(json.dumps(facts))
    seen = []
    monkeypatch.setattr(
        "lkd_tune.cli.compare._show", lambda found, *_: seen.extend(s.model for s in found.sides)
    )
    done = CliRunner().invoke(app, ["compare", str(run.path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert seen == [good, str(run.student("0000"))]


def test_a_model_alone_is_refused(pair):
    _, _, good, _ = pair
    with pytest.raises(
        SpecError, match="is not a run's folder; name a second model, or a run alone"
    ):
        CliRunner().invoke(app, ["compare", good], catch_exceptions=False)
