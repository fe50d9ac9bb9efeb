"""Distillations on a GPU: the CPU's results, precision, resuming, memory, energy and latency."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lkd_tune.config.settings.teacher import Inference
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets.store_build import get_or_build_store
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.placement import running
from lkd_tune.runtime.oom import gpu_is_lost, is_out_of_memory
from lkd_tune.runtime.usage import GpuEnergy
from tests.distillation.test_engine import ALL_FIVE
from tests.support.families import CONFIGS, make_classifier, make_csv, without_dropout

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = torch.device("cuda", 0)
# Prints a distillation's measurements where there is no GPU.
ON_THE_CPU = """
import sys
from lkd_tune.distillation.run import distill
from lkd_tune.config.trial import TrialSpec
for measurement in distill(TrialSpec.model_validate_json(sys.argv[1])):
    print(measurement.model_dump_json())
"""


def _spec(folder: Path, family: str = "bert", train: dict | None = None, **changes) -> TrialSpec:
    data = make_csv(folder)
    # With smaller weights the states of all words are so alike that their angles are rounding.
    options = {"initializer_range": 0.2, **without_dropout(family)}
    teacher = make_classifier(folder / "teacher", family, **options)
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        "teacher": teacher,
        "student": {"depth": 2},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "losses": ALL_FIVE,
        "train": {"steps": 8, "batch_size": 8, "lr": 1e-3, "evaluations": 2, **(train or {})},
        "seed": 3,
    }
    return TrialSpec.model_validate(settings | changes)


@pytest.mark.parametrize("family", CONFIGS)
def test_in_fp32_it_gives_what_the_cpu_gives(tmp_path, family):
    spec = _spec(tmp_path, family, {"precision": "fp32"})
    found = list(distill(spec))
    told = subprocess.run(
        [sys.executable, "-c", ON_THE_CPU, spec.to_json()],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        check=True,
    )
    expected = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs["losses"].items():
            assert ours.losses[name] == pytest.approx(value, rel=5e-3, abs=1e-6), name


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_continues_from_a_checkpoint_as_without_a_stop(tmp_path, stage, precision):
    spec = _spec(tmp_path, train={"precision": precision}, resources={"zero_stage": stage})
    with Distillation(spec) as whole:
        next(whole)
        whole.save_checkpoint(tmp_path / "middle")
        expected = next(whole)
    with Distillation(spec) as resumed:
        resumed.load_checkpoint(tmp_path / "middle")
        found = next(resumed)
        resumed.save_student(tmp_path / "student")
    # Up to the order of sums: a GPU's threads add up an embedding's gradient as they come.
    for name, value in expected.losses.items():
        assert found.losses[name] == pytest.approx(value, rel=1e-3 if precision == "fp32" else 0.05)
    saved = evaluate_model(str(tmp_path / "student"), spec.task)["dev"]
    assert saved["accuracy"] == pytest.approx(found.metrics["accuracy"], abs=0.05)


def test_auto_is_bf16_where_the_gpu_has_it(tmp_path):
    expected = torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    with Distillation(_spec(tmp_path)) as distillation:
        next(distillation)
        weights = {p.dtype for p in distillation._engine.module.parameters()}
        size = distillation.measure_size(tmp_path / "known")
    assert weights == {expected}
    assert size is not None
    assert size.latency_ms > 0
    name = torch.cuda.get_device_name()
    assert size.device == f"{name}, {'bf16' if expected == torch.bfloat16 else 'fp32'}"


def test_it_reports_what_it_took(tmp_path):
    # Longer than the interval at which NVML's counter goes on.
    *_, last = distill(_spec(tmp_path, train={"steps": 100}))
    assert 0 < last.peak_memory_gib < 1
    assert last.peak_host_gib > last.peak_memory_gib
    if GpuEnergy().joules() is not None:
        assert last.energy_j is not None
        assert last.energy_j > 0


def test_nothing_stays_on_the_gpu_when_it_is_closed(tmp_path):
    spec = _spec(tmp_path)
    list(distill(spec))  # what libraries keep is there from now on
    before = torch.cuda.memory_allocated()
    with Distillation(spec) as distillation:
        next(distillation)
        own = torch.cuda.memory_allocated() - before
    assert torch.cuda.memory_allocated() - before < own / 10


def test_stored_targets_are_those_of_the_teacher_beside_the_student(tmp_path):
    live = _spec(tmp_path, train={"precision": "fp32"}, targets={"source": "live"})
    stored = live.model_copy(update={"targets": type(live.targets)()})
    for ours, theirs in zip(distill(stored), distill(live), strict=True):
        for name, value in theirs.losses.items():
            assert ours.losses[name] == pytest.approx(value, rel=5e-3, abs=1e-5), name


def test_targets_of_a_gpu_are_those_of_the_cpu(tmp_path):
    spec = _spec(tmp_path)
    tokens = load_tokens(spec.task, "train", load_tokenizer(spec.teacher), cache=tmp_path)
    kind = kind_of(spec.task)
    here = get_or_build_store(spec.teacher, tokens, kind, torch.device("cpu"), tmp_path / "cpu")
    there = get_or_build_store(spec.teacher, tokens, kind, GPU, tmp_path / "gpu")
    assert here.name == there.name  # they serve each other
    for file in here.glob("*.npy"):
        ours, theirs = np.load(there / file.name), np.load(file)
        if ours.dtype == np.uint16:
            # Distances of nearly equal vectors are rounding, and set to 0 by both or by one.
            assert np.mean(np.abs(ours.astype(int) - theirs.astype(int)) > 2) < 0.01, file.name
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=file.name)


@pytest.mark.parametrize("placement", ["cpu", "device"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_teacher_on_the_host_answers_alike_and_leaves_the_gpu_alone(
    tmp_path, placement, precision
):
    model = load_model(make_classifier(tmp_path, "bert", initializer_range=0.2))
    ids = torch.ones(2, 9, dtype=torch.long)
    expected = model.eval()(input_ids=ids).logits
    inference = Inference.model_validate({"placement": placement, "precision": precision})
    before = torch.cuda.memory_allocated()
    with running(model, GPU, inference) as run, torch.no_grad():
        for _ in range(3):
            found = run(input_ids=ids.to(GPU)).logits.float().cpu()
            near = 1e-4 if precision == "fp32" else 0.1
            torch.testing.assert_close(found, expected, rtol=near, atol=near)
        held = torch.cuda.memory_allocated() - before
    weights = sum(p.numel() * p.element_size() for p in load_model(str(tmp_path)).parameters())
    assert (held < weights / 4) == (placement == "cpu")


# In a process of its own, whose GPU is lost or short of memory in the end.
SHORT = """
import torch
from lkd_tune.runtime.oom import gpu_is_lost, is_out_of_memory
torch.cuda.set_per_process_memory_fraction(2**28 / torch.cuda.get_device_properties(0).total_memory)
try:
    torch.empty(2**30, dtype=torch.uint8, device="cuda")
except Exception as error:
    print(is_out_of_memory(error), gpu_is_lost())
print(torch.ones(3, device="cuda").sum().item())
"""
LOST = """
import torch
from lkd_tune.runtime.oom import gpu_is_lost, is_out_of_memory
table, beyond = torch.zeros(2, device="cuda"), torch.tensor([5], device="cuda")
try:
    print(table[beyond].item())
except Exception as error:
    print(is_out_of_memory(error), gpu_is_lost())
"""


def test_a_lack_of_memory_is_distinguished_from_a_lost_gpu():
    assert _run(SHORT) == ["True False", "3.0"]
    assert _run(LOST) == ["False True"]
    assert not gpu_is_lost()
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


def _run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
