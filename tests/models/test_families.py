"""Every weight of every family and head has one role."""

import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification, DebertaV2Config, MPNetConfig

from lkd_tune.config.errors import SpecError
from lkd_tune.models.families import ATTENTION_ROLES, AXES, FAMILIES, Structure
from lkd_tune.models.loading import auto_model
from tests.support.families import CONFIGS

HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")


def _model(family: str, head: str):
    with torch.device("meta"):
        return auto_model(head).from_config(CONFIGS[family]())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", CONFIGS)
def test_each_axis_has_the_size_that_its_role_says(family, head):
    model = _model(family, head)
    structure, config = Structure(model), model.config
    sizes = {
        "embedding": getattr(config, "embedding_size", config.hidden_size),
        "hidden": config.hidden_size,
        "query": config.hidden_size,
        "value": config.hidden_size,
        "neurons": 48,
        "pooled": config.hidden_size,
    }
    for name, weight in model.state_dict().items():
        axes = AXES[structure.role_of(name)][: weight.dim()]
        assert all(
            axis is None or size == sizes[axis]
            for axis, size in zip(axes, weight.shape, strict=True)
        ), name


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_name_has_the_same_role_in_all_families(family, head):
    for name, _ in _model(family, head).named_modules():
        roles = {
            role
            for names in FAMILIES.values()
            for role, pattern in names.items()
            if re.search(pattern, name)
        }
        assert len(roles) <= 1, name


def test_every_role_of_a_family_has_axes():
    assert {role for names in FAMILIES.values() for role in names} == set(AXES)


@pytest.mark.parametrize("family", CONFIGS)
def test_layers_have_the_linear_modules_that_are_scored(family):
    structure = Structure(_model(family, "SequenceClassification"))
    for role in ("query", "key", "attention_output", "feed_forward_output"):
        assert [layer for layer, _ in structure.linears(role)] == [0, 1, 2, 3]
    assert [layer for layer, _ in structure.linears("classifier")] == [None]


def test_a_weight_of_a_layer_is_renamed_for_another_one():
    structure = Structure(_model("bert", "SequenceClassification"))
    name = "bert.encoder.layer.3.output.dense.bias"
    assert structure.layer_of(name) == 3
    assert structure.in_layer(name, 0) == "bert.encoder.layer.0.output.dense.bias"
    assert structure.layer_of("bert.pooler.dense.bias") is None


def test_an_unknown_weight_is_reported():
    structure = Structure(_model("bert", "SequenceClassification"))
    with pytest.raises(SpecError, match=r"adapter\.weight is not a weight of BERT, RoBERTa"):
        structure.role_of("adapter.weight")


_SIZES = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "config",
    [
        *(build() for build in CONFIGS.values()),
        MPNetConfig(**_SIZES, intermediate_size=24),
        DebertaV2Config(**_SIZES, intermediate_size=24),
    ],
    ids=lambda config: config.model_type,
)
def test_queries_keys_and_values_are_found_in_every_layer(config):
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    found = [(layer, role) for layer, role, _ in Structure(model).attention()]
    assert sorted(found) == [
        (layer, role)
        for layer in range(config.num_hidden_layers)
        for role in sorted(ATTENTION_ROLES)
    ]
