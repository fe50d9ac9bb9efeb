"""Which families can be made narrower: the test itself decides, not a list of names."""

import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.models.width import self_test
from lkd_tune.models.width.axes import Axes
from lkd_tune.models.width.self_test import check_narrowing
from tests.support.families import CONFIGS, NARROWED, config_of

HEAD = "SequenceClassification"


def _saved(folder, family, **options):
    config_of(family, **options).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", NARROWED)
def test_a_family_that_can_be_pruned_passes(tmp_path, family):
    check_narrowing(_saved(tmp_path, family), HEAD)


@pytest.mark.parametrize("family", [*CONFIGS, "mpnet", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("head", ["TokenClassification", "QuestionAnswering", "MaskedLM"])
def test_it_passes_with_other_heads(tmp_path, family, head):
    check_narrowing(_saved(tmp_path, family), head)


@pytest.mark.parametrize(
    "options",
    [
        {"share_att_key": False},  # modules of their own for positions
        {"conv_kernel_size": 3, "conv_act": "gelu"},  # beside the layers, as in the largest
        {"relative_attention": False, "pos_att_type": None},
        {"type_vocab_size": 2, "position_biased_input": False},
    ],
    ids=str,
)
def test_debertas_kinds_of_attention_pass(tmp_path, options):
    check_narrowing(_saved(tmp_path, "deberta-v2", **options), HEAD)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt2", "its layers have no feed-forward part of linear modules"),
        ("bloom", "its layers have no feed-forward part of linear modules"),
        ("gpt_neox", "with its parts in another order it gives another output"),
        ("olmo2", "with its parts in another order it gives another output"),
    ],
)
def test_another_one_is_refused_with_the_reason(tmp_path, family, reason):
    model = _saved(tmp_path, family)
    with pytest.raises(SpecError) as error:
        check_narrowing(model, HEAD)
    (problem,) = error.value.problems
    assert problem.message == (
        f"{model} can't be made narrower: {reason}; leave student.hidden_size, heads and "
        "intermediate_size out, or use student.init: random"
    )
    check_narrowing(model, HEAD, pruned=False)


@pytest.mark.parametrize(
    ("family", "taken", "other"),
    [
        ("bert", "value", "key"),
        ("mpnet", "value", "query"),
        ("qwen3", "key", "query"),
        ("deberta-v2", "pooled", "hidden"),
        ("modernbert", "pooled", "hidden"),
    ],
)
def test_a_part_that_is_taken_for_another_is_found(tmp_path, monkeypatch, family, taken, other):
    """Where the sizes are the same, the order alone tells."""

    class Mistaken(Axes):
        def of(self, weight):
            written, *read = super().of(weight)
            # Only where it is written: an axis that is renamed everywhere is the same axis.
            return (tuple(other if axis == taken else axis for axis in written), *read)

    monkeypatch.setattr(self_test, "Axes", Mistaken)
    check_narrowing.cache_clear()
    with pytest.raises(SpecError, match="can't be made narrower: "):
        check_narrowing(_saved(tmp_path, family), HEAD)
    check_narrowing.cache_clear()


def test_the_random_numbers_of_the_caller_stay(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_narrowing(_saved(tmp_path, "bert"), HEAD)
    assert torch.equal(torch.rand(2), expected)
