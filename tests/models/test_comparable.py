"""Queries, keys and values of any family that has modules of their own for them."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lkd_tune.config.errors import SpecError
from lkd_tune.models.comparable import AttentionHooks, check_attention
from tests.support.families import CONFIGS, config_of

_EACH = {"num_key_value_heads": 4}  # a head of keys and values for each of queries


@pytest.mark.parametrize(
    ("family", "options"),
    [*((family, {}) for family in (*CONFIGS, "mpnet", "deberta-v2")), ("llama", _EACH)],
)
def test_they_are_those_of_the_words(family, options):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config_of(family, **options)).eval()
    assert check_attention(model) == 32
    hooks, ids = AttentionHooks(model), torch.randint(5, 12, (2, 9))
    found = []
    for batch in (ids, ids.flip(1)):
        with torch.no_grad(), hooks.watching((2, 4)):
            model(batch)
        found.append(hooks.take((2, 4)))
    for vectors in (found[0].query, found[0].key, found[0].value):
        assert [tuple(layer.shape) for layer in vectors] == [(2, 9, 32)] * 2
    assert not torch.equal(found[0].query[0], found[1].query[0])


@pytest.mark.parametrize("family", ["modernbert", "qwen3", "gpt2", "albert"])
def test_fused_and_shared_ones_are_refused(family):
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config_of(family))
    with pytest.raises(SpecError, match="has no query, key and value modules of one size"):
        check_attention(model)
