"""Teachers that `check` refuses or warns of, and what a constant answer scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.evaluation.teacher_check import check_start, check_teacher, score_of_constant
from tests.support.families import make_classifier, make_csv


@pytest.fixture
def teacher(tmp_path) -> Path:
    return Path(make_classifier(tmp_path / "t"))


def _task(file: str, **settings) -> TaskSettings:
    return TaskSettings(name="own", train=file, dev=file, max_length=40, **settings)


def test_a_good_teacher_has_no_warnings(tmp_path, teacher):
    assert check_teacher(str(teacher), _task(make_csv(tmp_path))) == []


def test_a_folder_without_tokenizer_files_is_refused(tmp_path, teacher):
    for file in teacher.glob("tokenizer*"):
        file.unlink()
    for check in (check_teacher, check_start):
        with pytest.raises(SpecError, match="t has no tokenizer files"):
            check(str(teacher), _task(make_csv(tmp_path)))


def test_text_of_unknown_tokens_is_warned_of(tmp_path, teacher):
    file = tmp_path / "data.csv"
    file.write_text("text,label\nthe dog sees,0\nthe zebra runs,1\n")
    for check in (check_teacher, check_start):
        (warning,) = check(str(teacher), _task(str(file)))
        assert warning.startswith("warning: 33% of the training text's tokens are unknown")


def test_weights_that_are_nan_are_blamed_on_the_teacher(tmp_path, teacher):
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[3] = torch.inf
    model.save_pretrained(teacher)
    with pytest.raises(SpecError, match=r"^teacher: 1 of \d+ weights of .* are NaN or infinite"):
        check_teacher(str(teacher), _task(make_csv(tmp_path)))


def test_answers_that_overflow_are_blamed_on_the_teacher(tmp_path, teacher):
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)
        model.bert.pooler.dense.bias.fill_(10)
    model.save_pretrained(teacher)
    with pytest.raises(SpecError, match="answers the first rows of dev with NaN or infinite"):
        check_teacher(str(teacher), _task(make_csv(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "labels", "expected"),
    [
        ({"metric": "accuracy"}, ["1", "1", "1", "0"], 0.75),
        ({"metric": "matthews"}, ["1", "1", "1", "0"], 0.0),
        ({"kind": "regression"}, ["1.5", "2", "0.1", "3"], 0.0),
        ({"kind": "multi_label", "metric": "accuracy"}, ['"0,1"', "1", "1", "1"], 0.75),
    ],
)
def test_what_a_constant_answer_scores(tmp_path, teacher, settings, labels, expected):
    file = tmp_path / "own.csv"
    file.write_text("text,label\n" + "".join(f"dog,{label}\n" for label in labels))
    assert score_of_constant(_task(str(file), **settings), str(teacher)) == expected


def test_what_a_constant_tag_scores(tmp_path, teacher):
    file = tmp_path / "own.conll"
    file.write_text("the\tO\ncat\tB-X\nsees\tO\n\na\tO\ndog\tB-X\n")
    for metric, expected in (("accuracy", 0.6), ("f1", 0.0)):
        task = _task(str(file), kind="tagging", metric=metric)
        assert score_of_constant(task, str(teacher)) == pytest.approx(expected)
