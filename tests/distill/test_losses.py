"""The losses against published values, loops from the definition, and what must not matter."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lkd_tune.distill.angles import angle_differences
from lkd_tune.distill.losses import (
    LossSum,
    layer_relation_pair,
    layer_relation_triple,
    soft_label_loss,
    word_relation_pair,
    word_relation_triple,
    wr_pair,
    wr_triple,
)
from lkd_tune.distill.relations import layer_relations, word_relations

REFERENCE = Path(
    os.environ.get("LKD_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")
)
FORMS = {"l2loss": "l2", "smoothl1": "smooth_l1", "l1loss": "l1"}


def _published():
    cases = {
        "wr_pair_cos_kldiv": lambda s, t, m, w: word_relation_pair(s, t, m),
        "ltr_pair_cos_kldiv": lambda s, t, m, w: layer_relation_pair(s, t, m),
    }
    for theirs, ours in FORMS.items():
        cases |= {
            f"wr_pair_l2_{theirs}": lambda s, t, m, w, d=ours: word_relation_pair(
                s, t, m, distance="l2", discrepancy=d
            ),
            f"ltr_pair_l2_{theirs}": lambda s, t, m, w, d=ours: layer_relation_pair(
                s, t, m, distance="l2", discrepancy=d
            ),
            f"wr_triple_window_{theirs}": lambda s, t, m, w, d=ours: word_relation_triple(
                s, t, m, window=w, discrepancy=d, variant="paper"
            ),
            f"wr_triple_full_{theirs}": lambda s, t, m, w, d=ours: word_relation_triple(
                s, t, m, window=None, discrepancy=d, variant="paper"
            ),
            f"ltr_triple_{theirs}": lambda s, t, m, w, d=ours: layer_relation_triple(
                s, t, m, discrepancy=d
            ),
        }
    return cases


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no published values in {REFERENCE}")
@pytest.mark.parametrize("key", _published())
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_published_values_and_gradients(name, key):
    data = np.load(REFERENCE / f"ckd_losses_{name}.npz")
    student = torch.tensor(data["student"], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor(data["teacher"], dtype=torch.float64)
    loss = _published()[key](student, teacher, torch.tensor(data["mask"]), int(data["window"]))
    loss.backward()
    assert loss.item() == pytest.approx(float(data[key]), rel=1e-9)
    torch.testing.assert_close(
        student.grad, torch.tensor(data[f"{key}_grad"]).double(), rtol=1e-6, atol=1e-12
    )


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no published values in {REFERENCE}")
@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_published_logit_losses(name, temperature):
    data = np.load(REFERENCE / f"ckd_losses_{name}.npz")
    logits = (torch.tensor(data["logits_student"]), torch.tensor(data["logits_teacher"]))
    for regression, key in ((False, "logit_T"), (True, "logit_reg_T")):
        found = soft_label_loss(*logits, temperature=temperature, regression=regression)
        assert found.item() == pytest.approx(float(data[f"{key}{temperature}"]), rel=1e-9)


def _random(b, layers, n, h_student=6, h_teacher=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(b, layers, n, h_student, generator=generator, dtype=dtype)
    teacher = torch.randn(b, layers, n, h_teacher, generator=generator, dtype=dtype)
    lengths = torch.randint(1, n + 1, (b,), generator=generator)
    return student, teacher, torch.arange(n)[None] < lengths[:, None]


def _cosine(x, i, j, k):
    a, b = x[j] - x[i], x[k] - x[i]
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("window", [3, 5, None])
def test_masked_triples_by_the_definition(window):
    student, teacher, mask = _random(3, 2, 7)
    total, count, radius = 0.0, 0, 7 if window is None else window // 2
    for b, layer in itertools.product(range(3), range(2)):
        words = [i for i in range(7) if mask[b, i]]
        for i, j, k in itertools.permutations(words, 3):
            if abs(i - j) <= radius and abs(i - k) <= radius:
                x, y = student[b, layer], teacher[b, layer]
                total += (_cosine(x, i, j, k) - _cosine(y, i, j, k)) ** 2
                count += 1
    found = word_relation_triple(student, teacher, mask, window=window)
    assert found.item() == pytest.approx(total / count, rel=1e-9)


TERMS = {
    "wr_pair": word_relation_pair,
    "wr_pair l2": lambda *a: word_relation_pair(*a, distance="l2", discrepancy="smooth_l1"),
    "wr_pair cosine l1": lambda *a: word_relation_pair(*a, discrepancy="l1"),
    "wr_triple": lambda *a: word_relation_triple(*a, window=5),
    "wr_triple full": lambda *a: word_relation_triple(*a, window=None, discrepancy="l1"),
    "ltr_pair": layer_relation_pair,
    "ltr_pair l2": lambda *a: layer_relation_pair(*a, distance="l2", discrepancy="l2"),
    "ltr_triple": layer_relation_triple,
}


@pytest.mark.parametrize("term", TERMS)
@settings(max_examples=15, deadline=None)
@given(
    b=st.integers(1, 3),
    layers=st.integers(1, 4),
    n=st.integers(1, 9),
    more=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_padding_does_not_count(term, b, layers, n, more, seed):
    student, teacher, mask = _random(b, layers, n, seed=seed)
    loss = TERMS[term](student, teacher, mask)
    longer = [
        torch.cat([x, 100 * torch.randn(b, layers, more, x.shape[-1], dtype=x.dtype)], dim=2)
        for x in (student, teacher)
    ]
    padded = torch.cat([mask, torch.zeros(b, more, dtype=torch.bool)], dim=1)
    assert TERMS[term](*longer, padded).item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_a_student_equal_to_the_teacher_loses_nothing(term):
    _, teacher, mask = _random(3, 4, 8)
    assert TERMS[term](teacher, teacher, mask).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("term", ["wr_triple", "wr_triple full", "ltr_triple", "wr_pair l2"])
def test_distances_and_angles_do_not_change_under_translation(term):
    student, teacher, mask = _random(2, 3, 8)
    moved = student + 5
    assert TERMS[term](moved, teacher, mask).item() == pytest.approx(
        TERMS[term](student, teacher, mask).item(), rel=1e-6
    )


@pytest.mark.parametrize("term", TERMS)
def test_gradients_by_finite_differences(term):
    student, teacher, mask = _random(2, 3, 5, 3, 4, seed=1)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: TERMS[term](x, teacher, mask), student, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 12), window=st.sampled_from([3, 5, 7, 21]), seed=st.integers(0, 99))
@pytest.mark.parametrize("discrepancy", ["l2", "l1", "smooth_l1"])
def test_the_hand_written_gradient_is_that_of_autograd(discrepancy, n, window, seed):
    student, teacher, mask = _random(2, 2, n, seed=seed)
    ours = word_relations(student, mask).sq_dist.detach().requires_grad_()
    theirs = word_relations(teacher, mask).sq_dist
    plain = ours.detach().clone().requires_grad_()
    angle_differences(ours, theirs, mask[:, None], discrepancy, window).backward()
    _plain_angles(plain, theirs, mask, discrepancy, window).backward()
    symmetric = [x.grad + x.grad.transpose(-1, -2) for x in (ours, plain)]
    torch.testing.assert_close(*symmetric, rtol=1e-8, atol=1e-10)


def _plain_angles(student, teacher, mask, discrepancy, window):
    """All triples in one tensor, left to autograd."""

    def cosines(d):
        safe = torch.where(d > 0, d, torch.ones_like(d))
        lengths = safe[..., :, None] * safe[..., None, :]
        return (d[..., :, None] + d[..., None, :] - d[..., None, :, :]) / (2 * lengths.sqrt())

    i = torch.arange(student.shape[-1])
    apart = (i[:, None] - i).abs()
    near = (apart > 0) & (apart <= window // 2)
    valid = near[:, :, None] & near[:, None, :] & (apart > 0)[None]
    valid = valid & mask[:, :, None, None] & mask[:, None, :, None] & mask[:, None, None, :]
    form = {
        "l2": torch.nn.functional.mse_loss,
        "l1": torch.nn.functional.l1_loss,
        "smooth_l1": torch.nn.functional.smooth_l1_loss,
    }[discrepancy]
    each = form(cosines(student), cosines(teacher), reduction="none")
    return each.masked_fill(~valid[:, None], 0).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize(
    "case", ["equal vectors", "zero vectors", "one word", "no word", "one layer", "student = 0"]
)
def test_degenerate_input_has_finite_loss_and_gradient(term, case, dtype):
    student, teacher, mask = _random(2, 3, 6, dtype=dtype)
    if case == "equal vectors":
        student[:] = student[:, :1, :1]
    elif case == "zero vectors":
        student[:, :, 2:4] = 0
        teacher[:, :, 3:5] = 0
    elif case == "one word":
        mask = torch.arange(6)[None].expand(2, 6) < 1
    elif case == "no word":
        mask = torch.zeros(2, 6, dtype=torch.bool)
    elif case == "one layer":
        student, teacher = student[:, :1], teacher[:, :1]
    else:
        student = torch.zeros_like(student)
    student = student.clone().requires_grad_()
    loss = TERMS[term](student, teacher, mask)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 1e4
    if case == "no word":
        assert loss.item() == 0


@pytest.mark.parametrize("term", TERMS)
def test_bf16_states_are_accumulated_in_fp32(term):
    student, teacher, mask = _random(2, 4, 12, 64, 96, dtype=torch.bfloat16)
    expected = TERMS[term](student.double(), teacher.double(), mask).item()
    assert TERMS[term](student, teacher, mask).item() == pytest.approx(expected, rel=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert TERMS[term](student, teacher, mask).item() == pytest.approx(expected, rel=1e-3)


def test_a_large_common_mean_does_not_spoil_the_angles():
    student, teacher, mask = _random(2, 2, 12, 64, 96, dtype=torch.float32)
    expected = word_relation_triple(student.double(), teacher.double(), mask).item()
    shifted = word_relation_triple(student + 30, teacher + 30, mask).item()
    assert shifted == pytest.approx(expected, rel=1e-4)


def test_parts_of_a_batch_add_up_to_the_whole():
    student, teacher, mask = _random(6, 3, 9)

    def parts(function, build, **options):
        whole = function(build(student, mask), build(teacher, mask), mask, **options)
        split = [
            function(build(student[p], mask[p]), build(teacher[p], mask[p]), mask[p], **options)
            for p in (slice(0, 2), slice(2, 5), slice(5, 6))
        ]
        total = split[0] + split[1] + split[2]
        assert isinstance(total, LossSum)
        assert total.mean().item() == pytest.approx(whole.mean().item(), rel=1e-12)

    parts(wr_pair, word_relations)
    parts(wr_pair, word_relations, distance="l2", discrepancy="l2")
    parts(wr_triple, word_relations, window=5)


def test_selected_layers_are_those_of_the_selected_states():
    student, _, mask = _random(2, 5, 6)
    layers = [0, 2, 4]
    for build in (word_relations, layer_relations):
        found = build(student, mask).select(layers)
        expected = build(student[:, layers], mask)
        torch.testing.assert_close(found.sq_norm, expected.sq_norm)
        torch.testing.assert_close(found.sq_dist, expected.sq_dist)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, t, m: word_relation_pair(s, t[:, :1], m), "B, L and N must agree"),
        (lambda s, t, m: word_relation_pair(s[0], t, m), r"need the shape \(B, L, N, H\)"),
        (lambda s, t, m: word_relation_pair(s, t, m[:, :2]), "the mask has shape"),
        (lambda s, t, m: word_relation_pair(s, t, m, distance="l3"), "allowed: cosine, l2"),
        (
            lambda s, t, m: word_relation_pair(s, t, m, discrepancy="js"),
            "allowed: kl, l2, l1, smooth_l1",
        ),
        (lambda s, t, m: word_relation_pair(s, t, m, distance="l2"), "'cosine' only"),
        (lambda s, t, m: word_relation_triple(s, t, m, window=4), "window 4 is no odd number"),
        (lambda s, t, m: word_relation_triple(s, t, m, variant="x"), "allowed: masked, paper"),
        (lambda s, t, m: layer_relation_triple(s, t, m, discrepancy="kl"), "allowed: l2, l1"),
        (lambda s, t, m: soft_label_loss(s[0, 0], t[0, 0]), "differ in shape"),
        (lambda s, t, m: soft_label_loss(s[0, 0], s[0, 0], temperature=0), "not positive"),
    ],
)
def test_what_is_said_of_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(*_random(2, 3, 5))
