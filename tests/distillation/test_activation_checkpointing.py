"""Activations made anew in the backward pass: the same losses, fewer of them kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from tests.support.families import CONFIGS, make_classifier, make_csv

torch.set_num_threads(1)


def _spec(folder: Path, family: str = "bert", stage: int = 0, **train) -> TrialSpec:
    data = make_csv(folder)
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        "teacher": make_classifier(folder / "teacher", family),  # with dropout
        "student": {"depth": 4},
        "layer_map": {"word": (0, 1, 2, 3, 4), "layer": (0, 1, 2, 3, 4)},
        "train": {"steps": 6, "batch_size": 8, "lr": 1e-3, "evaluations": 2, **train},
        "resources": {"zero_stage": stage},
        "seed": 3,
    }
    return TrialSpec.model_validate(settings)


@pytest.mark.parametrize(
    ("family", "stage"), [*((family, 0) for family in CONFIGS), ("bert", 2), ("bert", 3)]
)
def test_the_losses_are_the_same(tmp_path, family, stage):
    kept = list(distill(_spec(tmp_path, family, stage, micro_batch_size=4)))
    spec = _spec(tmp_path, family, stage, micro_batch_size=4, activation_checkpointing=True)
    anew = list(distill(spec))
    assert [m.losses for m in anew] == [m.losses for m in kept]
    assert [m.metrics for m in anew] == [m.metrics for m in kept]


def _kept_bytes(spec: TrialSpec) -> int:
    """Returns the bytes that a forward pass keeps for the backward pass, weights left out."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with Distillation(spec) as distillation:
        losses = distillation._losses
        distillation._engine.train()
        batch = losses.read(np.arange(8), 0)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            losses.sums(distillation._engine, batch, losses.maps(0))
    return sum(kept.values())


def test_less_is_kept(tmp_path):
    kept = _kept_bytes(_spec(tmp_path))
    anew = _kept_bytes(_spec(tmp_path, activation_checkpointing=True))
    assert anew < 0.5 * kept


def test_it_is_the_same_trial(tmp_path):
    plain, anew = _spec(tmp_path), _spec(tmp_path, activation_checkpointing=True)
    assert plain.digest() == anew.digest()
    placed = plain.model_copy(
        update={"inference": plain.inference.model_copy(update={"placement": "cpu"})}
    )
    assert plain.digest() == placed.digest()
    bf16 = {"inference": plain.inference.model_copy(update={"precision": "bf16"})}
    assert plain.digest() != plain.model_copy(update=bf16).digest()
