"""Sizes: counted without weights, and timed once per architecture."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from lkd_tune.config.settings.teacher import Inference
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.models.loading import auto_model, load_config
from lkd_tune.models.size import count_size, expected_size
from lkd_tune.tuning.preparation.jobs import time_students
from tests.support.families import CONFIGS, OTHERS, config_of, make_classifier, make_csv

torch.set_num_threads(1)


def _spec(folder, family="bert", depth=2) -> TrialSpec:
    data = make_csv(folder)
    return TrialSpec.model_validate(
        {
            "task": {"name": "own", "train": data, "dev": data, "max_length": 16},
            "teacher": make_classifier(folder / "teacher", family),
            "student": {"depth": depth},
            "layer_map": {"word": (0, *range(1, depth + 1)), "layer": (0, *range(1, depth + 1))},
            "train": {"steps": 2, "batch_size": 4},
        }
    )


def _with(spec, section, **values) -> TrialSpec:
    return spec.model_copy(update={section: getattr(spec, section).model_copy(update=values)})


@pytest.mark.parametrize("family", CONFIGS)
def test_the_expected_size_is_the_measured_one(tmp_path, family):
    spec = _spec(tmp_path, family)
    latencies = tmp_path / "latencies"
    expected = expected_size(spec, latencies=latencies)
    assert expected is not None
    assert expected.latency_ms is None
    with Distillation(spec) as distillation:
        measured = distillation.measure_size(latencies)
        *_, last = distillation
        distillation.save_student(tmp_path / "student")
    assert measured is not None
    assert measured.parameters == expected.parameters == last.parameters
    assert (measured.flops, measured.disk_mb) == (expected.flops, expected.disk_mb)
    weights = (tmp_path / "student" / "model.safetensors").stat().st_size / 1e6
    assert weights == pytest.approx(expected.disk_mb, rel=0.1)
    assert measured.latency_ms is not None
    assert measured.latency_ms_batch_32 is not None
    assert min(measured.latency_ms, measured.latency_ms_batch_32) > 0
    # From now on the driver knows how fast this architecture is.
    found = expected_size(spec, latencies=latencies, devices={str(measured.device)})
    assert found == measured.model_copy(update={"device": None, "latency_spread": None})


@pytest.mark.parametrize("trained_in", ["bf16", "fp32"])
def test_the_disk_size_is_that_of_what_is_saved(tmp_path, trained_in):
    spec = _with(_spec(tmp_path), "train", precision=trained_in)
    # What the teacher was saved in is not what the student is.
    config = json.loads((tmp_path / "teacher" / "config.json").read_text())
    other = {"bf16": "float32", "fp32": "bfloat16"}[trained_in]
    (tmp_path / "teacher" / "config.json").write_text(json.dumps({**config, "dtype": other}))
    expected = expected_size(spec, latencies=tmp_path)
    with Distillation(spec) as distillation:
        measured = distillation.measure_size(tmp_path)
        distillation.save_student(tmp_path / "student")
    with safe_open(tmp_path / "student" / "model.safetensors", "pt") as file:
        saved = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert measured is not None
    assert expected is not None
    assert measured.disk_mb == expected.disk_mb
    assert measured.disk_mb == sum(each.nbytes for each in saved) / 1e6


def test_the_smallest_size_is_expected_on_an_unknown_gpu(tmp_path):
    spec = _spec(tmp_path)
    here = expected_size(spec, latencies=tmp_path)
    on_gpu = expected_size(_with(spec, "resources", gpus=1), latencies=tmp_path)
    full = _with(_with(spec, "resources", gpus=1), "train", precision="fp32")
    assert here is not None
    assert on_gpu is not None
    assert on_gpu.disk_mb == here.disk_mb / 2
    assert expected_size(full, latencies=tmp_path) == here


def test_flops_are_those_of_the_matrix_products(tmp_path):
    config = load_config(make_classifier(tmp_path / "model"))
    n, d, h, layers = 16, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    products = 2 * n * (4 * d * d + 2 * d * h) + 2 * 2 * n * n * d
    heads = 2 * d * d + 2 * d * config.num_labels
    assert count_size(config, "SequenceClassification", n).flops == layers * products + heads


@pytest.mark.parametrize("family", OTHERS)
def test_sizes_of_any_family_are_counted_without_weights(family):
    config = config_of(family)
    found = count_size(config, "SequenceClassification", 16)
    model = auto_model("SequenceClassification").from_config(config)
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    # Each weight that is not of the embeddings is multiplied with each of 16 words; attention
    # adds less than that.
    products = 2 * 16 * sum(layer.weight.numel() for layer in model.modules() if _multiplies(layer))
    assert products <= found.flops < 2 * products


def _multiplies(module):
    return isinstance(module, torch.nn.Linear | Conv1D)


def test_an_architecture_is_timed_once(tmp_path):
    spec, latencies = _spec(tmp_path), tmp_path / "latencies"
    with Distillation(spec) as distillation:
        first = distillation.measure_size(latencies)
    (file,) = latencies.iterdir()
    noted = {"latency_ms": 7.0, "latency_ms_batch_32": 70.0}
    file.write_text(json.dumps({**json.loads(file.read_text()), **noted}))
    with Distillation(spec) as distillation:
        second = distillation.measure_size(latencies)
    assert first is not None
    assert second == first.model_copy(update=noted)
    with Distillation(_spec(tmp_path, depth=3)) as distillation:
        distillation.measure_size(latencies)
    assert len([*latencies.iterdir()]) == 2


def test_a_trial_uses_latencies_that_were_timed_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # as the process beside the trials does
    spec = _spec(tmp_path)
    wider = spec.student.model_copy(update={"hidden_size": 64})  # than the teacher: there is none
    students = [spec.student, wider]
    times = time_students(
        2,
        1,
        str(spec.teacher),
        Inference().model_dump_json(),
        [student.model_dump_json() for student in students],
        spec.train.model_dump_json(),
        spec.task.model_dump_json(),
        str(tmp_path),
    )
    ((name, text),) = times["files"].items()
    assert times["teacher"]["latency_ms"] > 0
    assert times["teacher"]["device"].endswith(", 1 thread, fp32")
    (tmp_path / "latencies").mkdir()
    (tmp_path / "latencies" / name).write_text(text)
    with Distillation(spec) as distillation:
        measured = distillation.measure_size(tmp_path / "latencies")
    assert measured is not None
    assert json.loads(text)["latency_ms"] == measured.latency_ms
    assert str(measured.device).endswith(", 1 thread, fp32")
    assert [path.name for path in (tmp_path / "latencies").iterdir()] == [name]


def test_each_device_and_precision_has_its_own_latency(tmp_path):
    spec, latencies = _spec(tmp_path), tmp_path / "latencies"
    measured = {}
    for threads, precision in [(1, "fp32"), (2, "fp32"), (1, "bf16")]:
        torch.set_num_threads(threads)
        try:
            with Distillation(_with(spec, "train", precision=precision)) as distillation:
                found = distillation.measure_size(latencies)
        finally:
            torch.set_num_threads(1)
        assert found is not None
        measured[threads, precision] = found
    assert len([*latencies.iterdir()]) == len({size.device for size in measured.values()}) == 3
    one, two, bf16 = (str(size.device) for size in measured.values())
    assert one.endswith(", 1 thread, fp32")
    assert two.endswith(", 2 threads, fp32")
    assert bf16.endswith(", 1 thread, bf16")

    def latency(*devices, of=spec):
        size = expected_size(of, latencies=latencies, devices=devices)
        assert size is not None
        return size.latency_ms

    assert latency(one) == measured[1, "fp32"].latency_ms
    fp32 = [measured[1, "fp32"].latency_ms, measured[2, "fp32"].latency_ms]
    assert latency(one, two) == min(each for each in fp32 if each is not None)
    # On a device where it was not timed it may be fast enough.
    assert latency(one, "another device, fp32") is None
    assert latency() is None
    in_fp32 = _with(spec, "train", precision="fp32")
    assert latency(one, bf16, of=in_fp32) == measured[1, "fp32"].latency_ms


def test_timing_does_not_change_the_trial(tmp_path):
    spec = _spec(tmp_path)
    with Distillation(spec) as plain:
        *_, expected = plain
    with Distillation(spec) as timed:
        timed.measure_size(tmp_path / "latencies")
        *_, found = timed
    assert found.losses == expected.losses


def test_the_size_of_a_narrow_student_is_known_that_of_a_trimmed_vocabulary_is_not(tmp_path):
    spec = _spec(tmp_path)
    narrow = spec.student.model_copy(
        update={"hidden_size": 16, "heads": 2, "intermediate_size": 24}
    )
    spec = spec.model_copy(update={"student": narrow})
    expected = expected_size(spec, latencies=tmp_path)
    with Distillation(spec) as distillation:
        measured = distillation.measure_size(tmp_path)
    assert expected is not None
    assert measured is not None
    assert (measured.parameters, measured.flops) == (expected.parameters, expected.flops)
    trimmed = spec.model_copy(update={"student": narrow.model_copy(update={"vocab": "trim"})})
    assert expected_size(trimmed, latencies=tmp_path) is None
