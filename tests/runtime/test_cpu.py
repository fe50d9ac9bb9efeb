"""Matrix products in bfloat16 and threads on a CPU: when they are used, and what they change."""

import pytest
import torch

from lkd_tune.config.settings.teacher import TeacherTraining
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation import build
from lkd_tune.distillation.build import uses_bf16_matmul
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.runtime import cpu
from lkd_tune.runtime.cpu import bf16_matmul, gains_from_bf16_matmul, threads_for_width
from tests.support.families import make_classifier, make_csv
from tests.support.kinds_data import make_task

needs_setting = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch 2.9 or newer"
)
needs_units = pytest.mark.skipif(
    torch.cuda.is_available() or not gains_from_bf16_matmul(128),
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


@needs_setting
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
    monkeypatch.setattr(build, "device", lambda: torch.device("cpu"))
    assert uses_bf16_matmul(TrainSettings(precision=precision), width) == expected


@needs_setting
def test_on_a_gpu_they_are_of_no_use(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    monkeypatch.setattr(build, "device", lambda: torch.device("cuda"))
    assert not uses_bf16_matmul(TrainSettings(), 768)


@needs_setting
def test_the_setting_is_left_as_it_was():
    setting = cpu._matmul_setting()
    before = setting.fp32_precision
    with bf16_matmul():
        assert setting.fp32_precision == "bf16"
    assert setting.fp32_precision == before
    with pytest.raises(ZeroDivisionError), bf16_matmul():
        raise ZeroDivisionError
    assert setting.fp32_precision == before


@needs_setting
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


@needs_setting
@needs_units
def test_a_teacher_in_fp32_is_exact(tmp_path):
    live = {"targets": {"source": "live"}, "losses": {"wr_pair": {"weight": 1}}}
    losses = [
        next(distill(_spec(tmp_path, inference={"precision": precision}, **live))).losses
        for precision in ("auto", "fp32")
    ]
    assert losses[0] != losses[1]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_narrow_model_has_one_and_a_wide_one_all(three_threads):
    for width, threads in ((64, 1), (384, 3)):
        with threads_for_width(width):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 3


def test_threads_are_restored_after_an_error(three_threads):
    with pytest.raises(ZeroDivisionError), threads_for_width(64):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("width", "threads"), [(16, 1), (128, 3)])
def test_a_teacher_is_trained_with_the_threads_of_its_width(
    tmp_path, three_threads, width, threads
):
    task = make_task(tmp_path / "data", "classification", rows=32)
    small = {"layers": 1, "hidden_size": width, "heads": 2, "dropout": 0}
    training = TeacherTraining(architecture=small, steps=2, batch_size=8, lr=1e-3, evaluations=1)
    seen = []
    train_teacher(
        task,
        training,
        cache=tmp_path,
        on_measurement=lambda _: seen.append(torch.get_num_threads()),
    )
    assert seen == [threads]
