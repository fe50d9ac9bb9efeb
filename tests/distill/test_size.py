"""Sizes: counted without weights as they are with them, timed once for an architecture."""

from __future__ import annotations

import json

import pytest
import torch

from lkd_tune.distill.engine import Distillation
from lkd_tune.distill.models import load_config
from lkd_tune.distill.size import count_size, expected_size
from lkd_tune.spec.trial import TrialSpec
from tests.distill.families import CONFIGS, make_classifier, make_csv

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


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_expected_is_what_comes_out(tmp_path, family):
    spec = _spec(tmp_path, family)
    known = tmp_path / "latencies"
    expected = expected_size(spec, known=known)
    assert expected is not None
    assert expected.latency_ms is None
    with Distillation(spec) as distillation:
        measured = distillation.measure_size(known)
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
    assert expected_size(spec, known=known) == measured


def test_flops_are_those_of_the_matrix_products(tmp_path):
    config = load_config(make_classifier(tmp_path / "model"))
    n, d, h, layers = 16, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    products = 2 * n * (4 * d * d + 2 * d * h) + 2 * 2 * n * n * d
    heads = 2 * d * d + 2 * d * config.num_labels
    assert count_size(config, "SequenceClassification", n).flops == layers * products + heads


def test_an_architecture_is_timed_once(tmp_path):
    spec, known = _spec(tmp_path), tmp_path / "latencies"
    with Distillation(spec) as distillation:
        first = distillation.measure_size(known)
    (file,) = known.iterdir()
    file.write_text(json.dumps({"latency_ms": 7.0, "latency_ms_batch_32": 70.0}))
    with Distillation(spec) as distillation:
        second = distillation.measure_size(known)
    assert first is not None
    assert second == first.model_copy(update={"latency_ms": 7.0, "latency_ms_batch_32": 70.0})
    with Distillation(_spec(tmp_path, depth=3)) as distillation:
        distillation.measure_size(known)
    assert len([*known.iterdir()]) == 2


def test_timing_changes_nothing_of_the_trial(tmp_path):
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
    expected = expected_size(spec, known=tmp_path)
    with Distillation(spec) as distillation:
        measured = distillation.measure_size(tmp_path)
    assert expected is not None
    assert measured is not None
    assert (measured.parameters, measured.flops) == (expected.parameters, expected.flops)
    trimmed = spec.model_copy(update={"student": narrow.model_copy(update={"vocab": "trim"})})
    assert expected_size(trimmed, known=tmp_path) is None
