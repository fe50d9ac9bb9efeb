"""A model's width in its configuration, by the names of its family."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lkd_tune.config.settings.width import Width
from lkd_tune.models.families import resize_config, width_of_config
from lkd_tune.models.stack import Stack
from tests.support.families import NARROWED, config_of


def test_a_weight_of_a_layer_is_renamed_for_another_one():
    with torch.device("meta"):
        stack = Stack(AutoModelForSequenceClassification.from_config(config_of("bert")))
    name = "bert.encoder.layer.3.output.dense.bias"
    assert stack.layer_of(name) == 3
    assert stack.in_layer(name, 0) == "bert.encoder.layer.0.output.dense.bias"
    assert stack.layer_of("bert.pooler.dense.bias") is None


@pytest.mark.parametrize(
    ("family", "own_head_size", "group", "keeps_heads", "embedding_size"),
    [
        ("bert", None, 1, False, None),
        ("distilbert", None, 1, False, None),
        ("electra", None, 1, False, 16),
        ("mpnet", None, 1, False, None),
        ("deberta-v2", None, 1, False, None),
        ("modernbert", None, 1, True, None),
        ("llama", 8, 2, True, None),
        ("qwen3", 8, 2, True, None),
    ],
)
def test_what_sets_a_width_apart_is_in_the_configuration(
    family, own_head_size, group, keeps_heads, embedding_size
):
    width = width_of_config(config_of(family))
    assert width.sizes() == {"hidden_size": 32, "heads": 4, "intermediate_size": 48}
    assert vars(width) == {
        **width.sizes(),
        "own_head_size": own_head_size,
        "group": group,
        "keeps_heads": keeps_heads,
        "embedding_size": embedding_size,
    }


@pytest.mark.parametrize("family", NARROWED)
def test_a_resized_configuration_has_the_width_and_nothing_new(family):
    config = config_of(family)
    resized = resize_config(config, Width(16, 2, 24))
    assert width_of_config(resized) == Width(16, 2, 24)
    assert resized.to_dict().keys() == config.to_dict().keys()
    assert width_of_config(resized).group == width_of_config(config).group
    assert width_of_config(config) == Width(32, 4, 48)
