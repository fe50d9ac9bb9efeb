"""Products of bfloat16 on a CPU: when, and what they change."""

import pytest
import torch

from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation import build as setup
from lkd_tune.distillation.build import uses_bf16_products
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.runtime import precision as products
from lkd_tune.runtime.precision import bf16_products, gains_by_bf16_products
from tests.support.families import make_classifier, make_csv

pytestmark = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch 2.9 or newer"
)
needs_units = pytest.mark.skipif(
    torch.cuda.is_available() or not gains_by_bf16_products(128),
    reason="for CPUs with units for bfloat16",
)


def _spec(folder, **changes):
    data = make_csv(folder)
    return TrialSpec.model_validate(
        {
            "task": {"name": "own", "train": data, "dev": data},
            "teacher": make_classifier(folder / "teacher", "bert", hidden_size=128),
            "student": {"depth": 2},
            "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
            "train": {"steps": 6, "batch_size": 8, "lr": 1e-3, "evaluations": 1},
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("precision", "width", "units", "expected"),
    [
        ("auto", 128, True, True),
        ("auto", 64, True, False),
        ("auto", 128, False, False),
        ("fp32", 128, True, False),
        ("bf16", 128, True, False),
    ],
)
def test_they_are_used_where_they_are_faster(monkeypatch, precision, width, units, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units})
    monkeypatch.setattr(setup, "device", lambda: torch.device("cpu"))
    assert uses_bf16_products(TrainSettings(precision=precision), width) == expected


def test_on_a_gpu_they_are_of_no_use(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setattr(setup, "device", lambda: torch.device("cuda"))
    assert not uses_bf16_products(TrainSettings(), 768)


def test_the_setting_is_left_as_it_was():
    setting = products._setting()
    before = setting.fp32_precision
    with bf16_products():
        assert setting.fp32_precision == "bf16"
    assert setting.fp32_precision == before
    with pytest.raises(ZeroDivisionError), bf16_products():
        raise ZeroDivisionError
    assert setting.fp32_precision == before


@needs_units
@pytest.mark.parametrize("source", ["auto", "live"])
def test_they_change_training_little_and_scores_not(tmp_path, source):
    spec = _spec(tmp_path, targets={"source": source})
    exact = spec.model_copy(update={"train": spec.train.model_copy(update={"precision": "fp32"})})
    (expected,) = distill(exact)
    with Distillation(spec) as distillation:
        found = next(distillation)
        distillation.save_student(tmp_path / "student")
    assert found.losses != expected.losses
    for name, value in expected.losses.items():
        assert found.losses[name] == pytest.approx(value, rel=0.02), name
    # An evaluation is exact, also within a program that rounds.
    assert evaluate_model(str(tmp_path / "student"), spec.task)["dev"] == found.metrics
    again = list(distill(spec))
    assert again[0].losses == found.losses


@needs_units
def test_a_teacher_in_fp32_is_exact(tmp_path):
    live = {"targets": {"source": "live"}, "losses": {"wr_pair": {"weight": 1}}}
    losses = [
        next(distill(_spec(tmp_path, inference={"precision": precision}, **live))).losses
        for precision in ("auto", "fp32")
    ]
    assert losses[0] != losses[1]
