"""A training with two workers resumes with one or four, with the same losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from tests.support.families import make_classifier, make_csv, without_dropout
from tests.support.ranks import run_ranks

STEPS, STOP = 75, 25
# A ZeRO stage and a precision each; 0 in bfloat16 has another optimizer of DeepSpeed's.
KINDS = {"1": (1, "fp32"), "2": (2, "fp32"), "3": (3, "fp32"), "0-bf16": (0, "bf16")}


def _spec(folder: Path, kind: str, workers: int) -> TrialSpec:
    stage, precision = KINDS[kind]
    return TrialSpec.model_validate(
        {
            "task": {
                "name": "own",
                "train": str(folder / "data.csv"),
                "dev": str(folder / "dev.csv"),
            },
            "teacher": str(folder / "teacher"),
            "student": {"depth": 2},
            "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
            "train": {"steps": STEPS, "batch_size": 8, "lr": 1e-3, "precision": precision},
            "resources": {"workers": workers, "zero_stage": stage},
        }
    )


def _curve(distillation: Distillation, until: int) -> list[float]:
    """Trains up to a step; returns the mean objective of each five steps."""
    distillation._evaluations = list(range(5, STEPS + 1, 5))
    curve = []
    for measurement in distillation:
        curve.append(measurement.losses["total"])
        if measurement.step == until:
            break
    return curve


def _train(rank: int, folder: Path, kinds: list[str], workers: int) -> None:
    """Trains each kind: two workers from the start, others from the checkpoint of two."""
    for kind in kinds:
        with Distillation(_spec(folder, kind, workers)) as distillation:
            if workers == 2:
                _curve(distillation, STOP)
                distillation.save_checkpoint(folder / f"checkpoint-{kind}")
            else:
                distillation.load_checkpoint(folder / f"checkpoint-{kind}")
            curve = _curve(distillation, STEPS)
        if rank == 0:
            (folder / f"{kind}-{workers}.json").write_text(json.dumps(curve))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds", [["2"], pytest.param(["0-bf16", "1", "3"], marks=pytest.mark.slow)], ids=str
)
def test_the_loss_curve_is_that_of_the_training_that_was_not_stopped(tmp_path, kinds):
    make_classifier(tmp_path / "teacher", **without_dropout("bert"))
    make_csv(tmp_path)
    make_csv(tmp_path, rows=4, name="dev.csv")
    for workers in (2, 1, 4):
        run_ranks(workers, _train, tmp_path, kinds, workers)
    for kind in kinds:
        expected, one, four = (
            json.loads((tmp_path / f"{kind}-{workers}.json").read_text()) for workers in (2, 1, 4)
        )
        assert len(expected) == (STEPS - STOP) // 5
        # Sums in another order; in bfloat16 each step rounds to three digits.
        tolerance = 2e-2 if kind == "0-bf16" else 1e-3
        assert one == pytest.approx(expected, rel=tolerance)
        assert four == pytest.approx(expected, rel=tolerance)
        # None of these runs code when it is read.
        assert {path.name for path in (tmp_path / f"checkpoint-{kind}").iterdir()} == {
            "progress.json",
            "state.safetensors",
            "random_0.safetensors",
            "random_1.safetensors",
        }
