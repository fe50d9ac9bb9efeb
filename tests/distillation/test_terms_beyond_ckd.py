"""Trials that compare hidden states and attention: with a projection, ZeRO, resumed, in parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.models.comparable import make_comparable
from lkd_tune.models.loading import load_model
from lkd_tune.runtime.usage import count_parameters
from tests.support.families import CONFIGS, make_classifier, make_csv, without_dropout
from tests.support.ranks import run_ranks

torch.set_num_threads(1)

NO_RELATIONS = dict.fromkeys(("wr_pair", "wr_triple", "ltr_pair", "ltr_triple"), 0)
BOTH = {**NO_RELATIONS, "hidden": 1, "attention": {"weight": 1, "layers": "all"}}
SLOW = [(0, "bf16"), (2, "fp32"), (2, "bf16"), (3, "fp32")]
NARROW = {"depth": 2, "hidden_size": 16, "heads": 2}


def _spec(folder: Path, family: str = "bert", dropout: bool = False, **changes) -> TrialSpec:
    options = {} if dropout else without_dropout(family)
    data = make_csv(folder)
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        # Wide enough initial weights, so that no attention is uniform.
        "teacher": make_classifier(folder / "teacher", family, initializer_range=0.2, **options),
        "student": {"depth": 2},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "losses": BOTH,
        "train": {"steps": 8, "batch_size": 8, "lr": 1e-3, "evaluations": 2},
        "seed": 3,
    }
    return TrialSpec.model_validate(settings | changes)


def _same(found, expected, rel: float) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=rel, abs=1e-7), name


@pytest.mark.parametrize("family", CONFIGS)
def test_a_student_comes_nearer_to_its_teacher(tmp_path, family):
    spec = _spec(tmp_path, family, train={"steps": 24, "batch_size": 8, "lr": 3e-3})
    first, *_, last = distill(spec)
    assert set(last.losses) == {"logits", "hidden", "attention", "total"}
    assert 0 < last.losses["hidden"] < first.losses["hidden"]
    assert 0 < last.losses["attention"] < first.losses["attention"]


FORMS = {
    "pkd": {"hidden": {"weight": 1, "discrepancy": "cosine", "words": "first"}},
    "distilbert": {"hidden": {"weight": 1, "discrepancy": "cosine", "layers": "last"}},
    "minilm": {"attention": {"weight": 1, "variant": "distributions"}},
    "products": {"attention": {"weight": 1, "discrepancy": "l2", "heads": 8}},
    "beside ckd": {"wr_pair": 1, "ltr_pair": 1, "hidden": 1, "attention": 1},
}


@pytest.mark.parametrize("losses", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("student", [{"depth": 2}, NARROW], ids=["as wide", "narrower"])
def test_every_form_is_reported_and_learned(tmp_path, losses, student):
    train = {"steps": 16, "batch_size": 8, "lr": 3e-3, "evaluations": 2}
    spec = _spec(tmp_path, student=student, losses=NO_RELATIONS | losses, train=train)
    first, last = distill(spec)
    assert {*losses} < {*last.losses}
    for name in losses.keys() & {"hidden", "attention"}:
        assert 0 < last.losses[name] < first.losses[name]


def test_a_random_layer_map_serves_them_too(tmp_path):
    maps = {"word": "random", "layer": "random"}
    last = [*distill(_spec(tmp_path, student=NARROW, layer_map=maps))][-1]
    assert {"hidden", "attention"} < set(last.losses)


@pytest.mark.parametrize(
    ("stage", "precision"),
    [(0, "fp32"), (3, "bf16"), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
)
def test_a_projection_is_trained_and_resumed_but_is_no_part_of_the_student(
    tmp_path, stage, precision
):
    train = {"steps": 8, "batch_size": 8, "lr": 1e-2, "evaluations": 2, "precision": precision}
    spec = _spec(
        tmp_path, dropout=True, student=NARROW, train=train, resources={"zero_stage": stage}
    )
    with Distillation(spec) as whole:
        next(whole)
        whole.save_checkpoint(tmp_path / "middle")
        expected = next(whole)
        whole.save_student(tmp_path / "student")
        parameters = whole.parameters
    with Distillation(spec) as resumed:
        resumed.load_checkpoint(tmp_path / "middle")
        found = next(resumed)
    assert (found.losses, found.metrics) == (expected.losses, expected.metrics)
    saved = load_model(str(tmp_path / "student"))
    assert saved.config.hidden_size == 16
    assert count_parameters(saved) == parameters == found.parameters
    assert not [name for name in saved.state_dict() if "projection" in name or "student" in name]
    assert expected.losses["hidden"] > 0


@pytest.mark.parametrize("student", [{"depth": 2}, NARROW], ids=["as wide", "narrower"])
def test_micro_batches_do_not_change_the_objective(tmp_path, student):
    (whole,) = distill(_spec(tmp_path, student=student, train=_train()))
    (split,) = distill(_spec(tmp_path, student=student, train=_train(micro_batch_size=2)))
    _same(split.losses, whole.losses, rel=5e-4)


def _train(**options):
    return {"steps": 6, "batch_size": 8, "lr": 1e-3, "evaluations": 1, **options}


def _run_rank(rank: int, spec: str, out: str) -> None:
    (last,) = distill(TrialSpec.model_validate_json(spec))
    Path(out, f"{rank}.json").write_text(json.dumps(last.losses))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_two_workers_give_what_one_gives(tmp_path, stage):
    (one,) = distill(_spec(tmp_path, student=NARROW, train=_train()))
    resources = {"zero_stage": stage, "workers": 2}
    two = _spec(tmp_path, student=NARROW, train=_train(), resources=resources)
    run_ranks(2, _run_rank, two.to_json(), str(tmp_path))
    for rank in range(2):
        _same(json.loads((tmp_path / f"{rank}.json").read_text()), one.losses, rel=5e-4)


@pytest.mark.parametrize("stage", [0, 3])
def test_activation_checkpointing_does_not_change_the_losses(tmp_path, stage):
    options = {"dropout": True, "student": NARROW, "resources": {"zero_stage": stage}}
    (kept,) = distill(_spec(tmp_path, train=_train(), **options))
    (anew,) = distill(_spec(tmp_path, train=_train(activation_checkpointing=True), **options))
    assert anew.losses == kept.losses


def test_attention_alone_trains_with_sharded_weights(tmp_path):
    """No gradient comes through the hooks by which ZeRO-3 gathers the last layer's weights."""
    losses = {**NO_RELATIONS, "logits": 0, "attention": 1}
    train = {"steps": 16, "batch_size": 8, "lr": 3e-3, "evaluations": 2}
    whole, sharded = (
        [*distill(_spec(tmp_path, losses=losses, train=train, resources={"zero_stage": stage}))]
        for stage in (0, 3)
    )
    assert 0 < whole[-1].losses["attention"] < whole[0].losses["attention"]
    for ours, theirs in zip(sharded, whole, strict=True):
        _same(ours.losses, theirs.losses, rel=5e-4)


def test_the_projection_changes_no_other_random_number(tmp_path):
    teacher = load_model(make_classifier(tmp_path / "teacher"))
    student = load_model(make_classifier(tmp_path / "student", hidden_size=16))
    losses = LossSettings.model_validate(BOTH)
    before = torch.get_rng_state()
    one, same, other = (make_comparable(student, losses, teacher, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.projection.weight, same.projection.weight)
    assert not torch.equal(one.projection.weight, other.projection.weight)
    without = LossSettings()
    assert make_comparable(student, without, teacher, 0) is student


def test_relation_heads_that_do_not_divide_a_width_are_refused(tmp_path):
    losses = {"attention": {"weight": 1, "heads": 3}}
    with pytest.raises(SpecError, match="heads: 3 relation heads do not divide the teacher's"):
        list(distill(_spec(tmp_path, losses=losses)))
    losses = {"attention": {"weight": 1, "heads": 32}}
    with pytest.raises(SpecError, match="32 relation heads do not divide the student's"):
        list(distill(_spec(tmp_path, student=NARROW, losses=losses)))
