"""Pre-trained models of other families than BERT, whole: an encoder and a decoder.

They are read from folders of their names in LKD_MODELS, if they are there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.loading import load_model, load_tokenizer, save_model
from lkd_tune.models.self_test import check_model
from tests.support.kinds_data import make_task

MODELS = Path(os.environ.get("LKD_MODELS", "models"))
pytestmark = pytest.mark.slow


@pytest.fixture(params=["all-mpnet-base-v2", "SmolLM2-135M"])
def teacher(request, tmp_path):
    """The model with a head of random weights."""
    model = MODELS / request.param
    if not model.is_dir():
        pytest.skip(f"no {model}; LKD_MODELS names the folder that has it")
    torch.manual_seed(0)
    loaded = load_model(str(model), labels=2, new_head=True)
    save_model(loaded, load_tokenizer(str(model)), tmp_path / "teacher")
    return tmp_path / "teacher"


def _spec(folder, teacher, depth, **student) -> TrialSpec:
    task = make_task(folder / "data", "classification", rows=48)
    names = {"train": task.train, "dev": task.dev, "max_length": 24}
    layers = load_model(str(teacher), dtype="auto").config.num_hidden_layers
    chosen = (0, *range(1, depth), layers)
    return TrialSpec.model_validate(
        {
            "task": {"name": "own", **names},
            "teacher": str(teacher),
            "student": {"depth": depth, **student},
            "layer_map": {"word": chosen, "layer": chosen},
            "train": {"steps": 3, "batch_size": 8, "lr": 1e-4, "evaluations": 1},
        }
    )


def test_it_is_carved_trimmed_trained_saved_and_loaded(teacher, tmp_path):
    check_model(str(teacher), "SequenceClassification")
    spec = _spec(tmp_path, teacher, 3, vocab="trim")
    with Distillation(spec) as distillation:
        (last,) = distillation
        distillation.save_student(tmp_path / "student")
    assert {"wr_pair", "wr_triple", "ltr_pair", "ltr_triple", "logits"} <= {*last.losses}
    assert all(0 <= value < 1e3 for value in last.losses.values())
    found = evaluate_model(str(tmp_path / "student"), spec.task)["dev"]
    assert found == pytest.approx(last.metrics)
    student = load_model(str(tmp_path / "student"))
    assert student.config.num_hidden_layers == 3
    # Most of its vocabulary is not in the text.
    assert student.config.vocab_size < load_model(str(teacher)).config.vocab_size / 10


def test_a_student_of_all_layers_is_the_teacher(teacher, tmp_path):
    layers = load_model(str(teacher)).config.num_hidden_layers
    spec = _spec(tmp_path, teacher, layers)
    with Distillation(spec) as distillation:
        distillation.save_student(tmp_path / "student")
    text = load_tokenizer(str(teacher))(
        ["A lovely film.", "Bad."], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        ours, theirs = (load_model(str(m))(**text).logits for m in (tmp_path / "student", teacher))
    torch.testing.assert_close(ours, theirs)
