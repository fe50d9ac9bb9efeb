"""A distillation from teachers of families that are known by their structure alone."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.models.size import count_size, expected_config
from tests.support.families import OTHERS, config_of, make_classifier, make_csv, make_decoder

# One of each kind: another encoder, a decoder, one with rotary positions and grouped queries.
_EACH_TIME = ("modernbert", "gpt2", "qwen3")


@pytest.mark.parametrize(
    "family",
    [
        family if family in _EACH_TIME else pytest.param(family, marks=pytest.mark.slow)
        for family in OTHERS
    ],
)
def test_a_student_of_any_family_learns_and_is_saved(tmp_path, family):
    layers = config_of(family).num_hidden_layers
    teacher, csv = make_classifier(tmp_path / "teacher", family), make_csv(tmp_path)
    spec = TrialSpec.model_validate(
        {
            "task": {"name": "cats", "train": csv, "dev": csv, "max_length": 16},
            "teacher": teacher,
            "student": {"depth": 2, "vocab": "trim"},
            "layer_map": {"word": (0, 2, layers), "layer": (0, 2, layers)},
            "losses": {"hidden": 1},
            "train": {"steps": 6, "batch_size": 16, "lr": 1e-3, "evaluations": 2},
        }
    )
    with Distillation(spec, cache=tmp_path / "cache") as distillation:
        first, last = distillation
        assert set(last.losses) == {*dict(spec.losses.active()), "total"}
        assert last.losses["total"] < first.losses["total"]
        distillation.save_student(tmp_path / "student")
        texts = ["the dog sees a cat", "dogs"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    student = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "student", dtype=torch.float32
    )
    assert student.config.num_hidden_layers == 2
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    alone = tokenizer(texts[1:], return_tensors="pt")
    with torch.no_grad():
        together = student.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        single = student(alone["input_ids"], attention_mask=alone["attention_mask"]).logits
    torch.testing.assert_close(together[1:], single, atol=1e-4, rtol=1e-3)


def test_a_decoder_without_a_padding_token_pads_with_its_end_of_text(tmp_path):
    teacher, csv = make_decoder(tmp_path / "teacher", pad=None), make_csv(tmp_path)
    spec = TrialSpec.model_validate(
        {
            "task": {"name": "cats", "train": csv, "dev": csv, "max_length": 16},
            "teacher": teacher,
            "student": {"depth": 1},
            "layer_map": {"word": (0, 4), "layer": (0, 4)},
            "train": {"steps": 2, "batch_size": 16, "evaluations": 1},
        }
    )
    with Distillation(spec, cache=tmp_path / "cache") as distillation:
        list(distillation)
        distillation.save_student(tmp_path / "student")
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert student.config.pad_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id
    # Its configuration is known before: students are timed in batches.
    config = expected_config(spec.student, teacher)
    assert config.pad_token_id == tokenizer.pad_token_id
    count_size(config, "SequenceClassification", 16)
