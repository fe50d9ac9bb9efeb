"""Gradient norms of the loss terms, and trials whose terms are balanced by them."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from pathlib import Path

import pytest
import torch

from lkd_tune.config.settings.losses import LABELS_ONLY, LogitLoss, LossSettings
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation import balance
from lkd_tune.distillation.balance import measure_loss_scales, measure_norms, with_loss_scales
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill, distill_locally
from tests.distillation.test_engine import ALL_FIVE, _losses, _spec
from tests.support.families import make_classifier
from tests.support.ranks import run_ranks

torch.set_num_threads(1)

BALANCED = {**ALL_FIVE, "balance": "gradient"}


def _norm_of(spec: TrialSpec) -> float:
    """Returns the gradient norm of the whole objective before the first step, by the engine."""
    norms = []
    with Distillation(spec) as distillation:
        losses, student = distillation._losses, distillation._engine.module
        batches = distillation._batches.starting_at(0)
        for examples in itertools.islice(batches, balance._BATCHES):
            batch = losses.read(examples, 0)
            counts = losses.objective.counts([batch], losses.maps(0))
            sums = losses.sums(student, batch, losses.maps(0))
            parameters = list(student.parameters())
            own = torch.autograd.grad(
                losses.objective.weighted(sums, counts), parameters, allow_unused=True
            )
            norms.append(float(torch.cat([g.flatten() for g in own if g is not None]).norm()))
    return sum(norms) / len(norms)


@pytest.mark.parametrize("source", ["auto", "live"])
def test_terms_of_weight_1_pull_equally_once_they_are_scaled(tmp_path, source):
    spec = with_loss_scales(_spec(tmp_path, losses=BALANCED, targets={"source": source}))
    names = [name for name, _ in spec.losses.active()]
    assert [*spec.loss_scales] == names
    # The other terms are there, as a single one is not balanced, but next to nothing.
    alone = {
        name: spec.losses.with_weights({**dict.fromkeys(names, 1e-9), name: 1.0}) for name in names
    }
    norms = [_norm_of(spec.model_copy(update={"losses": losses})) for losses in alone.values()]
    assert norms == pytest.approx([norms[0]] * len(names), rel=1e-4)


def test_the_reference_is_the_loss_against_the_teacher_s_logits(tmp_path):
    spec = _spec(tmp_path, dropout=True)
    logits = [LogitLoss(temperature=1, weight=1), LogitLoss(temperature=4, weight=1)]
    first, second = measure_loss_scales([spec], {"logits": logits}).terms["logits"]
    assert first.strength == 1  # exactly: the same units were dropped out
    assert second.strength == pytest.approx(1 / 16, rel=0.05)


def test_the_same_trial_with_and_without_given_scales(tmp_path):
    spec = _spec(tmp_path, dropout=True, losses=BALANCED)
    given = with_loss_scales(spec)
    assert given.loss_scales
    assert with_loss_scales(given) is given
    measured = [m.losses for _, m in distill_locally(spec, to=tmp_path / "student")]
    assert measured == _losses(list(distill(given)))
    assert measured != _losses(list(distill(_spec(tmp_path, dropout=True))))
    record = json.loads((tmp_path / "student" / "student.json").read_text())
    assert record["spec"]["loss_scales"] == given.loss_scales


def test_terms_are_reported_as_they_are_and_the_total_with_their_scales(tmp_path):
    spec = _spec(tmp_path, losses=BALANCED)
    with Distillation(spec) as distillation:
        losses = next(distillation).losses
        scales = distillation.spec.loss_scales
    expected = sum(
        ALL_FIVE[name]["weight"] * scale * losses[name] for name, scale in scales.items()
    )
    assert losses["total"] == pytest.approx(expected)


def test_a_student_trained_on_the_labels_alone_is_the_same_with_any_balance(tmp_path):
    plain = _spec(tmp_path, dropout=True, losses=LABELS_ONLY)
    labels = LABELS_ONLY.model_copy(update={"balance": "gradient"})
    balanced = plain.model_copy(update={"losses": labels})
    assert with_loss_scales(balanced) is balanced
    expected = list(distill(plain))
    for scales in ({}, {"logits": 3.0}):
        found = list(distill(balanced.model_copy(update={"loss_scales": scales})))
        assert _losses(found) == _losses(expected)
        assert [m.metrics for m in found] == [m.metrics for m in expected]


def test_neither_map_nor_vocabulary_nor_workers_change_the_scales(tmp_path):
    spec = _spec(tmp_path, losses=BALANCED)
    expected = with_loss_scales(spec).loss_scales
    changed = [
        {"layer_map": {"word": (0, 1, 2), "layer": (0, 1, 2)}},
        {"student": {"depth": 2, "vocab": "trim"}},
        {"resources": {"workers": 4}},
    ]
    for change in changed:
        other = TrialSpec.model_validate(spec.model_dump(mode="json") | change)
        assert with_loss_scales(other).loss_scales == expected


def test_scales_are_medians_over_students(tmp_path):
    spec = _spec(tmp_path)
    terms = {name: [term.model_copy(update={"weight": 1.0})] for name, term in spec.losses.terms()}
    students = [
        _spec(tmp_path, student={"depth": d}, layer_map={"word": m, "layer": m})
        for d, m in ((1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1, 2, 3)))
    ]
    each = [measure_loss_scales([student], terms).terms for student in students]
    together = measure_loss_scales(students, terms).terms
    for name in terms:
        found = [terms[name][0].strength for terms in each]
        # With one layer besides the embeddings, layer relations have nothing to compare.
        assert (found[0] == 0) == name.startswith("ltr")
        logs = [math.log(strength) for strength in found if strength > 0]
        expected = math.exp(statistics.median(logs))
        assert together[name][0].strength == pytest.approx(expected)
    assert len(measure_norms(students, terms)) == 3


def test_a_student_as_deep_as_its_teacher_is_not_measured_as_a_copy_of_it(tmp_path):
    entries = (0, 1, 2, 3, 4)
    layer_map = {"word": entries, "layer": entries}
    spec = _spec(tmp_path, losses=BALANCED, student={"depth": 4}, layer_map=layer_map)
    assert all(0 < scale < 1e5 for scale in with_loss_scales(spec).loss_scales.values())


def test_a_term_without_a_gradient_keeps_its_weight(tmp_path):
    """Of a teacher of one layer the only student is the teacher, so nothing differs."""
    teacher = make_classifier(
        tmp_path / "shallow", num_hidden_layers=1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    spec = _spec(
        tmp_path,
        losses=BALANCED,
        teacher=teacher,
        student={"depth": 1},
        layer_map={"word": (0, 1), "layer": (0, 1)},
        targets={"source": "live"},
    )
    terms = {"ltr_triple": [spec.losses.ltr_triple.model_copy(update={"weight": 1.0})]}
    found = measure_loss_scales([spec], terms)
    assert found.without_gradient() == ["ltr_triple"]
    assert found.scales_of(LossSettings().with_weights({
        "wr_pair": 0, "wr_triple": 0, "ltr_pair": 0, "logits": 0,
    })) == {"ltr_triple": 1}  # fmt: skip


def test_a_batch_is_split_if_memory_runs_out(tmp_path, monkeypatch):
    spec = _spec(tmp_path, losses=BALANCED)
    expected = with_loss_scales(spec).loss_scales
    original, parts_seen = balance._gradients, []

    def small_memory(student, losses, parts, maps):
        parts_seen.append(len(parts))
        if len(parts) < 4:
            raise RuntimeError("CUDA out of memory")
        return original(student, losses, parts, maps)

    monkeypatch.setattr(balance, "_gradients", small_memory)
    found = with_loss_scales(spec).loss_scales
    assert found == pytest.approx(expected, rel=1e-3)
    assert max(parts_seen) >= 4


def _run_rank(rank: int, spec: str, out: str) -> None:
    with Distillation(TrialSpec.model_validate_json(spec)) as distillation:
        Path(out, f"{rank}.json").write_text(json.dumps(distillation.spec.loss_scales))


def test_two_workers_have_the_scales_of_one(tmp_path):
    spec = _spec(tmp_path, dropout=True, losses=BALANCED, resources={"workers": 2})
    run_ranks(2, _run_rank, spec.to_json(), str(tmp_path))
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    one = with_loss_scales(spec.model_copy(update={"resources": ResourceSettings()}))
    assert found == [one.loss_scales] * 2
