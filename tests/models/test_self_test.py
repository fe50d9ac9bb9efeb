"""Which families students can be made of: the test itself decides, not a list of names."""

import time

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.models import self_test
from lkd_tune.models.self_test import check_layers
from lkd_tune.models.stack import config_of_layers, find_stack
from lkd_tune.models.student import build_student
from tests.support.families import CONFIGS, OTHERS, config_of

HEAD = "SequenceClassification"


def _saved(folder, family, **options):
    config_of(family, **options).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", [*CONFIGS, *OTHERS])
def test_a_family_whose_layers_can_be_taken_passes(tmp_path, family):
    check_layers(_saved(tmp_path, family), HEAD)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("albert", "its layers are not modules of their own"),
        ("t5", "it has a decoder beside its encoder"),
        ("bart", "it has a decoder beside its encoder"),
        ("xlm", "its layers are spread over transformer.attentions"),
        ("fnet", "padding after a text changes its hidden states"),
        ("esm", "at another place they have other weights, such as esm.contact_head"),
        ("jamba", "it can't be run"),
    ],
)
def test_another_one_is_refused_with_the_reason(tmp_path, family, reason):
    with pytest.raises(SpecError) as error:
        check_layers(_saved(tmp_path, family), HEAD)
    (problem,) = error.value.problems
    if "other weights" not in reason:
        assert problem.message.startswith(f"layers can't be taken from {tmp_path}: ")
    assert reason in problem.message
    assert "\n" not in problem.message


def test_a_layer_that_depends_on_its_place_is_found(tmp_path, monkeypatch):
    """A rule by index which is not turned into a list: then a carved layer changes."""
    folder = _saved(tmp_path, "smollm3")
    monkeypatch.setattr(self_test, "config_of_layers", _without_lists)
    with pytest.raises(SpecError, match=r"layer 4 computes something else as layer 3 of a student"):
        check_layers(folder, HEAD)
    check_layers.cache_clear()


def _without_lists(config, layers):
    found = config_of_layers(config, layers)
    found.no_rope_layers = [1] * len(layers) if len(layers) < 4 else config.no_rope_layers
    return found


def test_the_random_numbers_of_the_caller_stay(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_layers(_saved(tmp_path, "bert"), HEAD)
    assert torch.equal(torch.rand(2), expected)


def test_a_model_too_large_to_be_copied_is_judged_by_its_modules(tmp_path):
    began = time.process_time()
    wide = {"hidden_size": 8192, "num_attention_heads": 64, "intermediate_size": 28672}
    check_layers(_saved(tmp_path, "llama", **wide), HEAD)
    assert time.process_time() - began < 60


@pytest.mark.parametrize(
    ("family", "key", "expected"),
    [
        ("modernbert", "layer_types", ["sliding_attention", "full_attention"]),
        ("gemma3_text", "layer_types", ["sliding_attention", "sliding_attention"]),
        ("smollm3", "no_rope_layers", [1, 0]),
    ],
)
def test_a_layer_keeps_its_kind_of_attention(tmp_path, family, key, expected):
    teacher = AutoModelForSequenceClassification.from_config(config_of(family)).eval()
    student = build_student(StudentSettings(depth=2), teacher, (2, 4), 2)
    assert list(getattr(student.config, key)) == expected
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(5, 17, (2, 9))
    assert torch.equal(student.eval()(ids).logits, again(ids).logits)


def test_the_first_layer_of_modernbert_has_no_norm_before_attention():
    teacher = AutoModelForSequenceClassification.from_config(config_of("modernbert"))
    student = build_student(StudentSettings(depth=2), teacher, (3, 1), 2)
    first, second = student.get_submodule(find_stack(student))
    assert isinstance(first.attn_norm, torch.nn.Identity)
    assert torch.equal(second.attn_norm.weight, torch.ones(32))
    theirs = teacher.get_submodule(find_stack(teacher))
    assert torch.equal(first.attn.Wqkv.weight, theirs[2].attn.Wqkv.weight)
    assert torch.equal(second.attn.Wqkv.weight, theirs[0].attn.Wqkv.weight)


def test_a_random_student_may_have_more_layers_than_the_teacher():
    teacher = AutoModelForSequenceClassification.from_config(config_of("modernbert"))
    student = build_student(StudentSettings(depth=8, init="random"), teacher, (), 2)
    kinds = teacher.config.layer_types
    assert student.config.layer_types == [*kinds, *kinds[:2]]
