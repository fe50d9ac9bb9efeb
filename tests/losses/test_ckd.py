"""The losses against published values, loops from the definition, and what must not matter."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.losses.direct_losses import direct_terms
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.ckd import (
    layer_relation_pair,
    layer_relation_triple,
    ltr_pair,
    ltr_pair_count,
    ltr_triple,
    ltr_triple_count,
    word_relation_pair,
    word_relation_triple,
    wr_pair,
    wr_pair_count,
    wr_triple,
    wr_triple_count,
)
from lkd_tune.losses.logits import soft_label_loss, soft_labels
from lkd_tune.losses.relations import layer_relations, word_relations
from lkd_tune.losses.triples import angle_differences

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
    for link, key in (("softmax", "logit_T"), ("identity", "logit_reg_T")):
        found = soft_label_loss(*logits, temperature=temperature, link=link)
        assert found.item() == pytest.approx(float(data[f"{key}{temperature}"]), rel=1e-9)


def _random(b, layers, n, h_student=6, h_teacher=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(b, layers, n, h_student, generator=generator, dtype=dtype)
    teacher = torch.randn(b, layers, n, h_teacher, generator=generator, dtype=dtype)
    lengths = torch.randint(1, n + 1, (b,), generator=generator)
    return student, teacher, torch.arange(n)[None] < lengths[:, None]


def _holes(mask, seed=0):
    """Takes words out of the middle: a mask need not be padding at the right."""
    generator = torch.Generator().manual_seed(seed)
    return mask & (torch.rand(mask.shape, generator=generator) < 0.7)


def _cosine(x, i, j, k):
    a, b = x[j] - x[i], x[k] - x[i]
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("window", [3, 5, 21, None])
def test_masked_triples_by_the_definition(window, holes):
    student, teacher, mask = _random(3, 2, 7)
    mask = _holes(mask) if holes else mask
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


def _divergence(x, y, real):
    """KL of the rows of similarities between real vectors, a vector with itself left out."""
    total = 0.0
    for i in real:
        others = [j for j in real if j != i]
        if not others:
            continue
        rows = []
        for vectors in (x, y):
            similar = [
                math.exp(float(torch.cosine_similarity(vectors[i], vectors[j], dim=0)))
                for j in others
            ]
            rows.append([value / sum(similar) for value in similar])
        total += sum(q * math.log(q / p) for p, q in zip(*rows, strict=True))
    return total


def test_pairs_by_the_definition():
    student, teacher, mask = _random(3, 3, 6)
    mask = _holes(mask, seed=3)
    words = layers = 0.0
    for b in range(3):
        real = [i for i in range(6) if mask[b, i]]
        words += sum(_divergence(student[b, l_], teacher[b, l_], real) for l_ in range(3))
        layers += sum(_divergence(student[b, :, i], teacher[b, :, i], range(3)) for i in real)
    count = 3 * float(mask.sum(-1).square().sum())
    assert word_relation_pair(student, teacher, mask).item() == pytest.approx(words / count)
    count = 9 * float(mask.sum())
    assert layer_relation_pair(student, teacher, mask).item() == pytest.approx(layers / count)


def test_layer_triples_by_the_definition():
    student, teacher, mask = _random(2, 4, 5)
    mask = _holes(mask, seed=1)
    total = 0.0
    for b, n in itertools.product(range(2), range(5)):
        if mask[b, n]:
            for i, j, k in itertools.permutations(range(4), 3):
                x, y = student[b, :, n], teacher[b, :, n]
                total += (_cosine(x, i, j, k) - _cosine(y, i, j, k)) ** 2
    # A layer named twice adds 0, and is counted as in the published form.
    found = layer_relation_triple(student, teacher, mask)
    assert found.item() == pytest.approx(total / (4**3 * float(mask.sum())), rel=1e-9)


@pytest.mark.parametrize("window", [3, 7])
def test_values_and_gradients_are_those_of_the_direct_form(window):
    student, teacher, mask = _random(3, 4, 10)
    mask = _holes(mask, seed=2)
    student.requires_grad_()
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    direct = direct_terms(student, teacher, mask, *logits, window)
    ours = {
        "wr_pair": word_relation_pair(student, teacher, mask),
        "wr_triple": word_relation_triple(student, teacher, mask, window=window),
        "ltr_pair": layer_relation_pair(student, teacher, mask),
        "ltr_triple": layer_relation_triple(student, teacher, mask),
        "logits": soft_label_loss(*logits),
    }
    assert list(direct) == list(ours)
    for name, term in ours.items():
        assert term.item() == pytest.approx(direct[name].item(), rel=1e-9), name
        if name != "logits":
            slopes = [torch.autograd.grad(x, student)[0] for x in (term, direct[name])]
            torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-12)
    (slope,) = torch.autograd.grad(ours["logits"], logits)
    assert (slope[1] == 0).all()  # the teacher's


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
@settings(max_examples=15, deadline=None, derandomize=True)
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
def test_padded_words_get_no_gradient(term):
    student, teacher, mask = _random(3, 3, 8)
    mask = _holes(mask)
    student.requires_grad_()
    TERMS[term](student, teacher, mask).backward()
    assert (student.grad.transpose(1, 2)[~mask] == 0).all()
    assert (student.grad != 0).any()


@pytest.mark.parametrize("term", TERMS)
def test_the_order_of_the_batch_does_not_matter(term):
    student, teacher, mask = _random(5, 3, 7)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert TERMS[term](student[order], teacher[order], mask[order]).item() == pytest.approx(
        TERMS[term](student, teacher, mask).item(), rel=1e-12
    )


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


@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=st.integers(3, 12), window=st.sampled_from([3, 5, 7, 21]), seed=st.integers(0, 99))
@pytest.mark.parametrize("discrepancy", ["l2", "l1", "smooth_l1"])
def test_the_hand_written_gradient_is_that_of_autograd(discrepancy, n, window, seed):
    student, teacher, mask = _random(2, 2, n, seed=seed)
    mask = _holes(mask, seed)
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


SUMS = {
    "wr_pair": (wr_pair, word_relations, {}),
    "wr_pair l2": (wr_pair, word_relations, {"distance": "l2", "discrepancy": "l2"}),
    "wr_triple": (wr_triple, word_relations, {"window": 5}),
    "wr_triple full": (wr_triple, word_relations, {"window": None}),
    "wr_triple paper": (wr_triple, word_relations, {"window": 5, "variant": "paper"}),
    "ltr_pair": (ltr_pair, layer_relations, {}),
    "ltr_triple": (ltr_triple, layer_relations, {}),
}


@pytest.mark.parametrize("term", SUMS)
def test_parts_of_a_batch_add_up_to_the_whole(term):
    function, build, options = SUMS[term]
    student, teacher, mask = _random(6, 3, 9)

    def loss(part, x):
        return function(
            build(x[part], mask[part]), build(teacher[part], mask[part]), mask[part], **options
        )

    whole, split = (student.clone().requires_grad_() for _ in range(2))
    expected = loss(slice(None), whole)
    total = loss(slice(0, 2), split) + loss(slice(2, 5), split) + loss(slice(5, 6), split)
    assert isinstance(total, LossSum)
    assert not total.count.requires_grad
    assert total.count == expected.count
    assert total.mean().item() == pytest.approx(expected.mean().item(), rel=1e-12)
    expected.mean().backward()
    total.mean().backward()
    torch.testing.assert_close(split.grad, whole.grad)


def test_parts_of_logits_add_up_to_the_whole():
    ours, theirs = torch.randn(2, 6, 3, dtype=torch.float64)
    total = soft_labels(ours[:2], theirs[:2]) + soft_labels(ours[2:], theirs[2:])
    assert total.mean().item() == pytest.approx(soft_labels(ours, theirs).mean().item())


@pytest.mark.parametrize("term", SUMS)
def test_no_gradient_flows_into_the_teachers_relations(term):
    function, build, options = SUMS[term]
    student, teacher, mask = _random(2, 3, 6)
    student.requires_grad_()
    relations = build(teacher, mask)
    for value in (relations.sq_norm, relations.sq_dist):
        value.requires_grad_()
    function(build(student, mask), relations, mask, **options).mean().backward()
    assert (student.grad != 0).any()
    for value in (relations.sq_norm, relations.sq_dist):
        assert value.grad is None or (value.grad == 0).all()


def test_pair_and_triple_share_the_students_relations():
    student, teacher, mask = _random(2, 3, 6)
    theirs = word_relations(teacher, mask)

    def gradient(*terms):
        x = student.clone().requires_grad_()
        shared = word_relations(x, mask)
        sum(term(shared, theirs, mask).mean() for term in terms).backward()
        return x.grad

    torch.testing.assert_close(
        gradient(wr_pair, wr_triple), gradient(wr_pair) + gradient(wr_triple)
    )


@pytest.mark.parametrize("term", SUMS)
def test_relations_in_parts_make_no_difference(term, monkeypatch):
    function, build, options = SUMS[term]
    student, teacher, mask = _random(5, 3, 6)
    results = []
    for part in (1, 2**20):
        monkeypatch.setattr("lkd_tune.losses.triples._CHUNK_ELEMENTS", part)
        monkeypatch.setattr("lkd_tune.losses.pairs._CHUNK_ELEMENTS", part)
        x = student.clone().requires_grad_()
        loss = function(build(x, mask), build(teacher, mask), mask, **options).mean()
        loss.backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("window", [3, 7, None])
def test_the_paper_variant_is_the_same_from_relations(window):
    # They are built with the mask that the other terms need.
    student, teacher, mask = _random(3, 2, 9)
    options = {"window": window, "variant": "paper"}
    found = wr_triple(word_relations(student, mask), word_relations(teacher, mask), mask, **options)
    expected = word_relation_triple(student, teacher, mask, **options)
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-12)
    everything = torch.ones_like(mask)
    unmasked = wr_triple(
        word_relations(student, everything), word_relations(teacher, everything), mask, **options
    )
    assert found.mean().item() == pytest.approx(unmasked.mean().item(), rel=1e-9)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("discrepancy", ["l2", "l1"])
def test_too_few_layers_give_nothing_to_count(layers, discrepancy):
    student, teacher, mask = _random(2, layers, 5)
    student[:] = 0  # so that every pair of layers is equal in the student
    student.requires_grad_()
    ours, theirs = layer_relations(student, mask), layer_relations(teacher, mask)
    pair = ltr_pair(ours, theirs, mask, discrepancy=discrepancy)
    triple = ltr_triple(ours, theirs, mask, discrepancy=discrepancy)
    for loss, enough in ((pair, layers >= 2), (triple, layers >= 3)):
        assert (loss.count > 0) == (loss.total > 0) == enough
        (slope,) = torch.autograd.grad(loss.mean(), student, retain_graph=True)
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("term", SUMS)
def test_a_batch_without_examples_has_a_loss_of_0(term):
    function, build, options = SUMS[term]
    student, teacher, mask = (x[:0] for x in _random(2, 3, 6))
    loss = function(build(student, mask), build(teacher, mask), mask, **options)
    assert loss.mean().item() == loss.count.item() == 0


@pytest.mark.parametrize("window", [None, 3, 21])
@pytest.mark.parametrize("variant", ["masked", "paper"])
def test_counts_alone_are_those_of_the_sums(window, variant):
    student, teacher, mask = _random(3, 4, 8)
    mask = _holes(mask)
    words = (word_relations(student, mask), word_relations(teacher, mask), mask)
    layers = (layer_relations(student, mask), layer_relations(teacher, mask), mask)
    options = {"window": window, "variant": variant}
    assert wr_pair(*words).count == wr_pair_count(mask, 4)
    assert wr_triple(*words, **options).count == wr_triple_count(mask, 4, **options)
    assert ltr_pair(*layers).count == ltr_pair_count(mask, 4)
    assert ltr_triple(*layers).count == ltr_triple_count(mask, 4)


@pytest.mark.parametrize("term", SUMS)
@pytest.mark.parametrize("what", ["layers", "examples", "length", "mask"])
def test_relations_that_do_not_fit_are_refused(term, what):
    function, build, options = SUMS[term]
    student, teacher, mask = _random(3, 3, 6)
    seen, message = mask, "relations differ in shape: student .*, teacher "
    if what == "layers":
        teacher = teacher[:, :1]  # one that would be broadcast
    elif what == "examples":
        teacher, seen = teacher[:1], mask[:1]
    elif what == "length":
        teacher, seen = teacher[:, :, :1], mask[:, :1]
    ours, theirs = build(student, mask), build(teacher, seen)
    if what == "mask":
        mask, message = mask[:, :2], r"the mask has shape \(3, 2\), \(B, N\) is \(3, 6\)"
    with pytest.raises(ValueError, match=message):
        function(ours, theirs, mask, **options)


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
        (lambda s, t, m: word_relation_pair(s, t, m, distance="l2"), "requires distance 'cosine'"),
        (lambda s, t, m: word_relation_triple(s, t, m, window=4), "window 4 is not an odd number"),
        (lambda s, t, m: word_relation_triple(s, t, m, variant="x"), "allowed: masked, paper"),
        (lambda s, t, m: layer_relation_triple(s, t, m, discrepancy="kl"), "allowed: l2, l1"),
        (lambda s, t, m: soft_label_loss(s[0, 0], t[0, 0]), "differ in shape"),
        (lambda s, t, m: soft_label_loss(s[0, 0], s[0, 0], temperature=0), "not positive"),
        (lambda s, t, m: soft_label_loss(s[0], s[0], temperature=math.nan), "nan is not positive"),
        (lambda s, t, m: soft_label_loss(s[0], s[0], temperature=math.inf), "inf is not positive"),
        (lambda s, t, m: layer_relation_pair(s, t[:, :1], m), "B, L and N must agree"),
        (lambda s, t, m: layer_relation_pair(s, t, m, distance="l2"), "requires distance 'cosine'"),
        (lambda s, t, m: word_relation_triple(s, t, m, window=1), "window 1 is not an odd number"),
    ],
)
def test_what_is_said_of_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(*_random(2, 3, 5))
