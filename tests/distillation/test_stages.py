"""Terms that end before the training does: `losses.relations_until`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation import batch_losses
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets import base
from tests.support.families import make_classifier, make_csv

torch.set_num_threads(1)

WEIGHTS = {"wr_pair": 1.0, "wr_triple": 0, "ltr_pair": 1.0, "ltr_triple": 0}


def _spec(folder: Path, until: float, *, alpha: float = 0.25, **changes: Any) -> TrialSpec:
    data = make_csv(folder)
    logits = {"weight": 1.0, "alpha": alpha}
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        "teacher": make_classifier(folder / "teacher"),
        "student": {"depth": 2},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "losses": {**WEIGHTS, "logits": logits, "relations_until": until},
        "train": {"steps": 8, "batch_size": 8, "lr": 1e-3, "evaluations": 3},
        "seed": 3,
    }
    return TrialSpec.model_validate(settings | changes)


def test_a_term_is_reported_until_it_has_ended(tmp_path):
    first, second, third = distill(_spec(tmp_path, 0.375))  # evaluated after steps 2, 4 and 8
    whole = list(distill(_spec(tmp_path, 1.0)))
    terms = {"wr_pair", "ltr_pair", "logits", "total"}
    assert set(first.losses) == set(second.losses) == terms
    assert set(third.losses) == {"logits", "total"}
    assert third.losses["total"] == third.losses["logits"]
    assert first.losses == whole[0].losses
    assert second.losses != whole[1].losses
    # The mean is that of the third step alone, not of it and a zero.
    short = _spec(tmp_path, 1.0, train={"steps": 8, "batch_size": 8, "lr": 1e-3, "evaluations": 1})
    with Distillation(short) as distillation:
        distillation._train_until(2)
        third_step = distillation._train_until(3)
        means = distillation._losses.objective.report(third_step.losses)
    assert second.losses["wr_pair"] == pytest.approx(means["wr_pair"], rel=1e-6)


@pytest.mark.parametrize("source", ["auto", "live"])
@pytest.mark.parametrize(("alpha", "teacher_steps"), [(0.25, 8), (1.0, 3)])
def test_steps_after_the_end_do_not_compute_what_only_relations_read(
    tmp_path, monkeypatch, source, alpha, teacher_steps
):
    asked: dict[str, list[bool]] = {"student": [], "teacher": []}

    def spied(who: str, original: Any) -> Any:
        def forward(model: Any, batch: Any, *, hidden_states: bool, **options: Any) -> Any:
            asked[who].append(hidden_states)
            return original(model, batch, hidden_states=hidden_states, **options)

        return forward

    train = {"steps": 8, "batch_size": 8, "evaluations": 1}
    spec = _spec(tmp_path, 0.375, alpha=alpha, targets={"source": source}, train=train)
    with Distillation(spec) as distillation:
        monkeypatch.setattr(batch_losses, "forward", spied("student", batch_losses.forward))
        monkeypatch.setattr(base, "forward", spied("teacher", base.forward))
        next(distillation)
    assert asked["student"] == [True] * 3 + [False] * 5
    expected = [True] * 3 + [False] * (teacher_steps - 3)
    assert asked["teacher"] == (expected if source == "live" else [])


@pytest.mark.parametrize(("until", "stage"), [(0.375, 0), (0.375, 3), (0.75, 2)])
def test_a_resumed_trial_has_the_same_objective(tmp_path, until, stage):
    # The projections of `hidden` have no gradient after the end.
    losses = {**WEIGHTS, "hidden": 1, "attention": 1, "logits": 1, "relations_until": until}
    student = {"depth": 2, "hidden_size": 16, "heads": 2}
    resources = {"zero_stage": stage}
    spec = _spec(tmp_path, until, losses=losses, student=student, resources=resources)
    with Distillation(spec) as whole:
        next(whole)
        next(whole)
        whole.save_checkpoint(tmp_path / "middle")  # after step 4: before the end, or after it
        expected = next(whole)
    with Distillation(spec) as resumed:
        resumed.load_checkpoint(tmp_path / "middle")
        found = next(resumed)
    assert found.losses == expected.losses
    ended = {"wr_pair", "ltr_pair", "hidden", "attention"} - found.losses.keys()
    assert len(ended) == (0 if until > 0.5 else 4)
    assert found.metrics == expected.metrics
