"""Memory of models: measured on the host, and checked before a model is loaded."""

from __future__ import annotations

import json

import numpy as np
import psutil
import pytest
from transformers import BertConfig, BertForSequenceClassification

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.models.memory import check_memory, measure_memory
from tests.support.families import CONFIGS, make_classifier


@pytest.mark.slow
def test_memory_is_each_model_s_own(tmp_path):
    """It grows with the weights, and does not count what this process holds."""
    held = np.ones(400_000_000 // 8)  # 400 MB
    weights_mb = []
    for width in (64, 1024):
        config = BertConfig(
            vocab_size=50, hidden_size=width, num_hidden_layers=2, num_attention_heads=1,
            intermediate_size=4 * width, max_position_embeddings=16,
        )  # fmt: skip
        folder = tmp_path / str(width)
        BertForSequenceClassification(config).save_pretrained(folder)
        weights_mb.append((folder / "model.safetensors").stat().st_size / 1e6)
    models = [str(tmp_path / str(width)) for width in (64, 1024)]
    small, large = measure_memory(models, "SequenceClassification", 16)
    assert large.peak_mb - small.peak_mb > 0.8 * (weights_mb[1] - weights_mb[0]) > 70
    assert small.peak_mb - small.libraries_mb < 60
    assert psutil.Process().memory_info().rss > held.nbytes
    assert small.peak_mb < psutil.Process().memory_info().rss / 1e6


def test_the_memory_of_a_model_that_can_t_be_loaded_is_not_measured(tmp_path):
    with pytest.raises(SpecError, match=r"its memory can't be measured: .*can't be loaded"):
        measure_memory([str(tmp_path)], "SequenceClassification", 16)


def test_a_model_larger_than_the_memory_is_refused_before_it_is_loaded(tmp_path):
    config = CONFIGS["bert"]().to_dict() | {
        "hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 100
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    head = "SequenceClassification"
    with pytest.raises(SpecError, match=r"GB of weights, the (host|GPU) .*bf16 halves them"):
        check_memory(str(tmp_path), head, PLAIN)
    with pytest.raises(SpecError, match="use a machine with more memory"):
        check_memory(str(tmp_path), head, Inference(precision="bf16", placement="cpu"))
    check_memory(make_classifier(tmp_path / "small"), head, PLAIN)
