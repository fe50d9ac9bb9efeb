"""A student in other formats: each answers as PyTorch does, for every head and family."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import onnx
import pytest
import torch

from lkd_tune.cli.export import export
from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.export.check import check_batches, largest_difference
from lkd_tune.export.convert import CONVERTERS, convert_student, write_formats
from lkd_tune.export.exported_model import Runnable
from lkd_tune.export.formats import FORMATS, FormatError, parse_formats, read_conversion
from lkd_tune.export.onnx import open_onnx
from lkd_tune.export.torch_export import open_program
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import load_model, load_tokenizer
from tests.support.families import CONFIGS, make_classifier, make_csv
from tests.support.kinds_data import make_model, make_task

# The head of classification: see tests/export/test_convert.py.
HEADS = (
    "question_answering",
    pytest.param("tagging", marks=pytest.mark.slow),
    pytest.param("masked_lm", marks=pytest.mark.slow),
)
# Encoders and decoders with a classification head that are known by their structure alone.
EXPORTED = ("modernbert", "deberta-v2", "mpnet", "gte", "llama", "qwen3", "gemma3_text", "gpt2")


@pytest.mark.parametrize("kind", HEADS)
def test_each_format_answers_as_pytorch(kind, tmp_path):
    task = make_task(tmp_path / "data", kind, rows=40)
    student = make_model(tmp_path / "student", task)
    found = convert_student(student, tuple(FORMATS), task, cache=tmp_path)
    assert read_conversion(student) == found
    assert [facts.format for facts in found.formats] == list(FORMATS)
    hf, onnx_, int8, exported = found.formats
    assert hf.difference is None
    assert 0 < onnx_.difference < 1e-4
    assert exported.difference < 1e-4
    assert int8.difference > 1e-4
    expected = evaluate_model(str(student), task, cache=tmp_path)["dev"]
    for facts in (hf, onnx_, exported):
        assert facts.metrics == pytest.approx(expected, abs=1e-4)
    assert set(int8.metrics) == set(expected)
    for facts in found.formats:
        assert facts.size_mb == (student / FORMATS[facts.format].file).stat().st_size / 1e6
        assert facts.latency_ms > 0
    assert found.batch_sizes == (1, 3, 8, 16)
    graph = onnx.load(student / FORMATS["onnx-int8"].file).graph
    for each in graph.input:
        axes = each.type.tensor_type.shape.dim
        assert [axis.dim_param for axis in axes] == ["batch", "sequence"]
    # Of each layer queries, keys, values, the output of attention and two of the feed-forward part.
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) >= 2 * 6
    program = open_program(student / FORMATS["torch-export"].file, None)
    ids = torch.ones(1, 5, dtype=torch.long)
    answer = program(input_ids=ids, attention_mask=ids, token_type_ids=ids)
    assert not next(iter(vars(answer).values())).requires_grad
    # Files say nothing of the machine that they were written on.
    here = str(Path(torch.__file__).parent.parent).encode()
    assert here not in (student / FORMATS["onnx"].file).read_bytes()
    with zipfile.ZipFile(student / FORMATS["torch-export"].file) as archive:
        assert not any(here in archive.read(name) for name in archive.namelist())


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in (*CONFIGS, *EXPORTED) if family != "bert"])
def test_each_family(family, tmp_path):
    data = make_csv(tmp_path)
    task = TaskSettings(name="own", train=data, dev=data, max_length=16)
    student = Path(make_classifier(tmp_path / "student", family, initializer_range=0.2))
    kind, model = kind_of(task), load_model(str(student))
    write_formats(student, ("onnx", "torch-export"), model, kind.head)
    batches = check_batches(load_tokens(task, "dev", load_tokenizer(str(student)), cache=tmp_path))
    for name, opened in (("onnx", open_onnx), ("torch-export", open_program)):
        written = opened(student / FORMATS[name].file, model.config)
        assert largest_difference(model, written, kind, batches) < 1e-4


@pytest.mark.slow
def test_what_int8_is_made_from_is_not_left_behind(tmp_path):
    task = make_task(tmp_path / "data", "classification", rows=16)
    student = make_model(tmp_path / "student", task)
    found = convert_student(student, ("hf", "onnx-int8"), task, cache=tmp_path)
    assert [facts.format for facts in found.formats] == ["hf", "onnx-int8"]
    assert [path.name for path in (student / "onnx").iterdir()] == ["model_int8.onnx"]


def test_batches_to_compare_have_several_sizes_and_lengths(tmp_path):
    task = make_task(tmp_path / "data", "classification", rows=40)
    student = make_model(tmp_path / "student", task)
    tokens = load_tokens(task, "dev", load_tokenizer(str(student)), cache=tmp_path)
    batches = check_batches(tokens)
    assert {len(batch.ids) for batch in batches} == {1, 3, 8, 16}
    widths = [batch.ids.shape[1] for batch in batches]
    assert (min(widths), max(widths)) == (tokens.lengths.min(), tokens.lengths.max())
    assert any(not batch.mask.all() for batch in batches)
    assert all(batch.mask.any(0).all() for batch in batches)


@pytest.mark.parametrize("wrong", [lambda logits: logits + 0.01, lambda logits: logits * np.nan])
def test_a_format_that_answers_otherwise_is_refused(wrong, tmp_path, monkeypatch):
    task = make_task(tmp_path / "data", "classification", rows=40)
    student = make_model(tmp_path / "student", task)
    model = load_model(str(student))
    program = Runnable(
        model.config,
        lambda inputs: {"logits": wrong(model(**inputs).logits)},
    )
    converter = replace(CONVERTERS["torch-export"], open=lambda path, config: program)
    monkeypatch.setitem(CONVERTERS, "torch-export", converter)
    with pytest.raises(FormatError, match=r"torch.export differs from PyTorch by .* in a logit"):
        convert_student(student, ("torch-export",), task, cache=tmp_path)


def test_a_mask_that_is_not_heeded_is_seen(tmp_path):
    task = make_task(tmp_path / "data", "classification", rows=40)
    student = make_model(tmp_path / "student", task)
    model = load_model(str(student))
    tokens = load_tokens(task, "dev", load_tokenizer(str(student)), cache=tmp_path)
    unmasked = Runnable(
        model.config,
        lambda inputs: {
            "logits": model(**{**inputs, "attention_mask": inputs["input_ids"] * 0 + 1}).logits
        },
    )
    batches = check_batches(tokens)
    assert largest_difference(model, unmasked, kind_of(task), batches) > 1e-3
    with torch.no_grad():
        assert forward(unmasked, batches[-1], hidden_states=False).logits.shape[-1] == 2


def test_each_format_has_a_converter_after_the_one_that_it_is_made_from():
    assert list(CONVERTERS) == [name for name in FORMATS if name != "hf"]
    order = list(CONVERTERS)
    for name, converter in CONVERTERS.items():
        if converter.source is not None:
            assert order.index(converter.source) < order.index(name)


def test_the_help_of_the_command_names_each_format():
    option = get_type_hints(export, include_extras=True)["formats"].__metadata__[0]
    assert all(f"{name}," in option.help or f"{name};" in option.help for name in [*FORMATS][1:])
    assert "hf (always written)" in option.help


@pytest.mark.parametrize("formats", [("onnx",), ("hf", "onnx-int8")])
def test_a_student_too_large_for_onnx_is_refused(formats, tmp_path):
    large = torch.nn.Module()
    large.register_parameter("weight", torch.nn.Parameter(torch.empty(600_000_000, device="meta")))
    name = formats[-1]
    with pytest.raises(SpecError) as found:
        write_formats(tmp_path, formats, large, "SequenceClassification")
    assert str(found.value) == (
        f"--format: {name} can hold 2000 MB, the student has 2400 MB of weights; "
        f"export without {name}"
    )


def test_formats_are_named_in_any_order_and_hf_is_always_there():
    assert parse_formats("torch-export, onnx") == ("hf", "onnx", "torch-export")
    assert parse_formats("hf") == ("hf",)
    with pytest.raises(SpecError) as found:
        parse_formats("onx,tflite")
    assert str(found.value).splitlines() == [
        "--format: found 'onx' (did you mean onnx?); allowed: hf, onnx, onnx-int8, torch-export",
        "--format: found 'tflite'; allowed: hf, onnx, onnx-int8, torch-export",
    ]


def test_a_missing_package_is_reported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "x" in name else 1)
    with pytest.raises(
        SpecError, match=r"onnx-int8 needs onnx, onnxruntime, onnxscript: pip insta"
    ):
        parse_formats("hf,onnx-int8,torch-export")
    assert json.dumps(parse_formats("torch-export"))
