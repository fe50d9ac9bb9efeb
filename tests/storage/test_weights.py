"""Weights that are not all there, and the names that wrappers give them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lkd_tune.config.errors import SpecError
from lkd_tune.models.loading import load_model, read_depth
from lkd_tune.storage.weights import check_finite, has_wrapper_names
from tests.support.families import make_classifier


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(make_classifier(tmp_path / "t"))


def _rename(folder, rename) -> None:
    """Writes the weights with other names; without those whose new name is empty."""
    file = folder / "model.safetensors"
    weights = {rename(name): tensor for name, tensor in load_file(file).items()}
    weights.pop("", None)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module."])
def test_the_prefixes_of_compiled_and_parallel_models_are_left_out(folder, prefix):
    before = load_model(str(folder)).state_dict()
    assert not has_wrapper_names(folder)
    _rename(folder, lambda name: prefix + name)
    assert has_wrapper_names(folder)
    after = load_model(str(folder)).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_model_without_a_head_is_no_classifier_but_may_get_one(folder):
    _rename(folder, lambda name: "" if "classifier" in name or "pooler" in name else name)
    with pytest.raises(SpecError, match=r"no trained head for this task \(bert\.pooler.*classif"):
        load_model(str(folder))
    assert load_model(str(folder), labels=3, new_head=True).config.num_labels == 3


def test_missing_weights_of_the_encoder_are_named(folder):
    _rename(folder, lambda name: f"wrong.{name}")
    for new_head in (False, True):
        with pytest.raises(SpecError) as error:
            load_model(str(folder), new_head=new_head)
        (problem,) = error.value.problems
        assert "lack bert.embeddings.LayerNorm.bias" in problem.message
        assert "they hold wrong.bert.embeddings.LayerNorm.bias" in problem.message
        assert "\n" not in problem.message


def test_layers_that_the_configuration_lacks_are_an_error_and_other_parts_are_not(folder):
    file = folder / "model.safetensors"
    extra = {"lm_head.bias": torch.zeros(3), "bert.other.weight": torch.zeros(3)}
    save_file(load_file(file) | extra, file, metadata={"format": "pt"})
    load_model(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(SpecError, match=r"hold bert\.encoder\.layer\.2.*config\.json has no place"):
        load_model(str(folder))


def test_weights_of_another_shape_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(SpecError, match=r"lack bert\.encoder\.layer\.0\.intermediate\.dense"):
        load_model(str(folder))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 100000\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_files_that_are_not_whole_are_told_in_one_line(folder, name):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    file = folder / name
    if name.endswith("bin"):
        torch.save(weights, file)
    else:
        save_file(weights, file, metadata={"format": "pt"})
    load_model(str(folder))
    content = file.read_bytes()
    for part, message in (
        (content[:1000], "is cut short or damaged"),
        (content[:-1], "is cut short or damaged"),
        (b"", "is cut short or damaged"),
        (POINTER, "is a Git LFS pointer"),
    ):
        file.write_bytes(part)
        with pytest.raises(SpecError, match=f"{name} {message}"):
            load_model(str(folder))


def test_an_adapter_is_told_as_such(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    for read in (read_depth, load_model):
        with pytest.raises(SpecError, match="is a PEFT adapter, not a model; merge it"):
            read(str(tmp_path))


def test_weights_that_are_not_finite_are_named(folder):
    model = load_model(str(folder))
    check_finite("t", model)
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    with pytest.raises(SpecError, match=r"1 of \d+ weights of t are NaN.*\(classifier\.bias\)"):
        check_finite("t", model)
