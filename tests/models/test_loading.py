"""Models that are loaded, and those that can't be."""

import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.models.loading import load_model, load_tokenizer, read_depth
from tests.support.families import make_classifier


def test_fp16_weights_are_loaded_as_fp32(tmp_path):
    folder = make_classifier(tmp_path / "t")
    load_model(folder).half().save_pretrained(folder)
    assert load_model(folder).dtype == torch.float32


def test_a_missing_model_is_reported_in_one_line(tmp_path):
    with pytest.raises(SpecError, match="no such folder") as caught:
        load_tokenizer(str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=r"has no config\.json"):
        read_depth(str(tmp_path / "empty"))
