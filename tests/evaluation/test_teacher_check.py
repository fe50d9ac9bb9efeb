"""Teachers that `check` refuses or warns of, and what a constant answer scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.evaluation.teacher_check import check_start, check_teacher, score_of_constant
from lkd_tune.models.loading import load_config, load_model, load_tokenizer
from tests.support.families import make_classifier, make_csv, make_decoder


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


def test_a_decoder_without_a_padding_token_is_told_of(tmp_path):
    teacher, task = make_decoder(tmp_path / "t", pad=None), _task(make_csv(tmp_path))
    for check in (check_teacher, check_start):
        (note,) = check(teacher, task)
        assert note == (
            f"{teacher} has no padding token, so texts are padded with [SEP], its last one"
        )
    assert load_config(teacher).pad_token_id == load_tokenizer(teacher).eos_token_id


def test_a_decoder_knows_the_padding_token_of_its_tokenizer(tmp_path):
    # As Qwen has it: only the tokenizer has a padding token, and it is not that of the text's end.
    teacher = make_decoder(tmp_path / "t", pad=None)
    tokenizer = load_tokenizer(teacher)
    tokenizer.pad_token = "[MASK]"
    tokenizer.save_pretrained(teacher)
    assert load_config(teacher).pad_token_id == load_model(teacher).config.pad_token_id
    assert load_config(teacher).pad_token_id == tokenizer.convert_tokens_to_ids("[MASK]")
    assert check_teacher(teacher, _task(make_csv(tmp_path))) == []


def test_a_decoder_that_takes_another_token_for_padding_is_refused(tmp_path):
    teacher = make_decoder(tmp_path / "t", pad=3)
    for check in (check_teacher, check_start):
        with pytest.raises(SpecError) as error:
            check(teacher, _task(make_csv(tmp_path)))
        (problem,) = error.value.problems
        assert str(problem) == (
            f"teacher: padding after a text changes the answers of {teacher}: its tokenizer pads "
            "with token 0, its config.json has pad_token_id 3; set that to 0"
        )


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path, teacher):
    tokenizer = load_tokenizer(str(teacher))
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(teacher)
    file = tmp_path / "data.csv"
    file.write_text("text,label\nthe zebra,0\nthe cat,1\n")
    for check in (check_teacher, check_start):
        with pytest.raises(SpecError, match="embeddings of 17 tokens, its tokenizer uses token"):
            check(str(teacher), _task(str(file)))


def test_a_tokenizer_without_any_special_token_is_refused(tmp_path, teacher):
    backend = Tokenizer(models.WordLevel({"the": 0, "cat": 1}, unk_token="the"))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(teacher)
    with pytest.raises(SpecError, match="has no special token to pad texts with"):
        load_tokenizer(str(teacher))


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
