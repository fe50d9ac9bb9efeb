"""What each dimension of a weight counts, whatever the family."""

import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.models.families import width_of
from lkd_tune.models.loading import auto_model
from lkd_tune.models.width.axes import ATTENTION_ROLES, Axes
from tests.support.families import CONFIGS, NARROWED, config_of

HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")


def _model(family: str, head: str = "SequenceClassification"):
    with torch.device("meta"):
        return auto_model(head).from_config(config_of(family))


def _sizes_are_right(model):
    axes, width = Axes(model), width_of(model)
    sizes = {
        "hidden": width.hidden_size,
        "pooled": width.hidden_size,
        "query": width.attention_size,
        "context": width.attention_size,
        "key": width.attention_size // width.group,
        "value": width.attention_size // width.group,
        "heads": width.heads,
        "neurons": width.intermediate_size,
    }
    for name, weight in model.state_dict().items():
        dims = axes.of(name)
        assert len(dims) == weight.dim(), name
        for blocks, size in zip(dims, weight.shape, strict=True):
            assert not blocks or size == sum(sizes[axis] for axis in blocks), name


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", CONFIGS)
def test_each_dimension_has_the_size_of_its_axes(family, head):
    _sizes_are_right(_model(family, head))


@pytest.mark.parametrize("family", [f for f in NARROWED if f not in CONFIGS])
def test_each_dimension_of_other_families_has_the_size_of_its_axes(family):
    _sizes_are_right(_model(family))


@pytest.mark.parametrize("labels", [20, 40, 48, 64])
def test_the_number_of_labels_is_taken_for_no_other_size(labels):
    with torch.device("meta"):
        config = config_of("bert", num_labels=labels)
        _sizes_are_right(auto_model("SequenceClassification").from_config(config))


@pytest.mark.parametrize("family", NARROWED)
def test_each_layer_has_the_linear_modules_that_are_scored(family):
    model = _model(family)
    layers = [*range(model.config.num_hidden_layers)]
    written, read = {}, {}
    for layer, _, writes, reads in Axes(model).linears():
        for axis in writes:
            written.setdefault(axis, []).append(layer)
        for axis in reads:
            read.setdefault(axis, []).append(layer)
    assert written["query"] == written["key"] == written["value"] == layers
    assert read["context"] == read["neurons"] == layers
    assert sorted({*written["neurons"]}) == layers


@pytest.mark.parametrize(
    ("family", "head", "pooled"),
    [
        ("bert", "SequenceClassification", True),
        ("distilbert", "SequenceClassification", True),
        ("modernbert", "SequenceClassification", True),  # with a norm behind it
        ("qwen3", "SequenceClassification", False),
        ("bert", "TokenClassification", False),
        ("bert", "MaskedLM", False),  # compared with embeddings
        ("modernbert", "MaskedLM", False),
    ],
)
def test_what_a_classifier_reads_behind_a_dense_module_is_an_axis_of_its_own(family, head, pooled):
    model = _model(family, head)
    axes = Axes(model)
    found = [name for name in model.state_dict() if ("pooled",) in axes.of(name)]
    assert bool(found) == pooled
    if family == "modernbert" and pooled:
        assert found == ["head.dense.weight", "head.norm.weight", "classifier.weight"]


def test_what_belongs_to_heads_outside_the_layers_is_found():
    assert Axes(_model("mpnet")).share_heads
    assert not Axes(_model("bert")).share_heads


def test_a_weight_that_others_of_its_kind_do_not_have_is_reported():
    axes = Axes(_model("bert"))
    with pytest.raises(SpecError, match=r"narrower: it has the weight adapter\.weight besides"):
        axes.of("adapter.weight")


@pytest.mark.parametrize("family", [*CONFIGS, "mpnet", "deberta-v2", "llama"])
def test_queries_keys_and_values_are_found_in_every_layer(family):
    model = _model(family)
    found = [(layer, role) for layer, role, _ in Axes(model).attention()]
    assert sorted(found) == [
        (layer, role)
        for layer in range(model.config.num_hidden_layers)
        for role in sorted(ATTENTION_ROLES)
    ]


def test_the_random_numbers_of_the_caller_stay():
    model = _model("bert")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Axes(model)
    assert torch.equal(torch.rand(2), expected)
