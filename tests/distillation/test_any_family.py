"""A distillation from teachers of families that are known by their structure alone."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.models.families import width_of
from lkd_tune.models.size import count_size, expected_config, expected_size
from lkd_tune.runtime.usage import count_parameters
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
    spec = _spec(tmp_path, family, depth=2, vocab="trim")
    _train(spec, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    student = _load(tmp_path / "student")
    assert student.config.num_hidden_layers == 2
    texts = ["the dog sees a cat", "dogs"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    alone = tokenizer(texts[1:], return_tensors="pt")
    with torch.no_grad():
        together = student(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        single = student(alone["input_ids"], attention_mask=alone["attention_mask"]).logits
    torch.testing.assert_close(together[1:], single, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "family",
    [
        "modernbert",
        "qwen3",
        *(
            pytest.param(family, marks=pytest.mark.slow)
            for family in ("mpnet", "deberta-v2", "llama", "electra", "distilbert")
        ),
    ],
)
def test_a_narrower_student_of_any_family_has_the_size_that_was_expected(tmp_path, family):
    width = {"hidden_size": 24, "intermediate_size": 20}
    spec = _spec(tmp_path, family, depth=2, **width)
    expected = expected_size(spec, latencies=tmp_path)
    last = _train(spec, tmp_path)
    student = _load(tmp_path / "student")
    assert {key: width_of(student).sizes()[key] for key in width} == width
    assert count_parameters(student) == last.parameters == expected.parameters


def _spec(folder, family, **student):
    layers = config_of(family).num_hidden_layers
    csv = make_csv(folder)
    return TrialSpec.model_validate(
        {
            "task": {"name": "cats", "train": csv, "dev": csv, "max_length": 16},
            "teacher": make_classifier(folder / "teacher", family),
            "student": student,
            "layer_map": {"word": (0, 2, layers), "layer": (0, 2, layers)},
            "losses": {"hidden": 1},
            "train": {"steps": 6, "batch_size": 16, "lr": 1e-3, "evaluations": 2},
        }
    )


def _train(spec, folder):
    """Returns the last measurement of a training that lowers its loss; the student is saved."""
    with Distillation(spec, cache=folder / "cache") as distillation:
        first, last = distillation
        assert set(last.losses) == {*dict(spec.losses.active()), "total"}
        assert last.losses["total"] < first.losses["total"]
        distillation.save_student(folder / "student")
    return last


def _load(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


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
