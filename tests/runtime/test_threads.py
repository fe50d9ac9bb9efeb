"""Threads that a model can use."""

import pytest
import torch

from lkd_tune.config.settings.teacher import TeacherTraining
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.runtime.threads import useful_threads
from tests.support.kinds_data import make_task


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_narrow_model_has_one_and_a_wide_one_all(three_threads):
    for width, threads in ((64, 1), (384, 3)):
        with useful_threads(width):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 3


def test_they_are_given_back_after_an_error(three_threads):
    with pytest.raises(ZeroDivisionError), useful_threads(64):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("width", "threads"), [(16, 1), (128, 3)])
def test_a_teacher_is_trained_with_them(tmp_path, three_threads, width, threads):
    task = make_task(tmp_path / "data", "classification", rows=32)
    small = {"layers": 1, "hidden_size": width, "heads": 2, "dropout": 0}
    training = TeacherTraining(architecture=small, steps=2, batch_size=8, lr=1e-3, evaluations=1)
    seen = []
    train_teacher(
        task, training, cache=tmp_path, progress=lambda _: seen.append(torch.get_num_threads())
    )
    assert seen == [threads]
