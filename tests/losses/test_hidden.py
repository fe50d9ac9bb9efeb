"""Hidden states regressed: their definition as loops, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch

from lkd_tune.losses.hidden import hidden_count, hidden_difference

torch.set_num_threads(1)

B, L, N, H = 3, 2, 5, 4
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [1, 0, 0, 0, 0]]).bool()
FORMS = [(d, w) for d in ("l2", "cosine") for w in ("all", "first")]


def _states(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, L, B, N, H, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def _difference(a: list[float], b: list[float], discrepancy: str) -> float:
    if discrepancy == "l2":
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / H
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize(("discrepancy", "words"), FORMS)
def test_sum_and_count_are_those_of_the_definition(discrepancy, words):
    student, teacher = _states()
    total, count = 0.0, 0
    for layer in range(L):
        for example in range(B):
            for word in range(N) if words == "all" else [0]:
                if MASK[example, word]:
                    pair = (x[layer, example, word].tolist() for x in (student, teacher))
                    total += _difference(*pair, discrepancy)
                    count += 1
    options = {"discrepancy": discrepancy, "words": words}
    found = hidden_difference(student.unbind(), teacher.unbind(), MASK, **options)
    assert found.total.item() == pytest.approx(total)
    assert found.count.item() == count == hidden_count(MASK, L, words=words)
    assert found.count.dtype == torch.float64


@pytest.mark.parametrize(("discrepancy", "words"), FORMS)
def test_gradients_are_finite_differences(discrepancy, words):
    student, teacher = _states()

    def loss(states: torch.Tensor) -> torch.Tensor:
        options = {"discrepancy": discrepancy, "words": words}
        return hidden_difference(states.unbind(), teacher.unbind(), MASK, **options).mean()

    assert torch.autograd.gradcheck(loss, student, fast_mode=True)
    loss(student).backward()
    assert (student.grad[:, ~MASK] == 0).all()


def test_twice_the_cosine_is_the_squared_difference_of_normalised_vectors():
    student, teacher = _states()
    normalised = (x[:, :, 0] / x[:, :, 0].norm(dim=-1, keepdim=True) for x in (student, teacher))
    ours, theirs = normalised
    pkd = (ours - theirs).square().sum()
    found = hidden_difference(
        student.unbind(), teacher.unbind(), MASK, discrepancy="cosine", words="first"
    )
    assert 2 * found.total.item() == pytest.approx(pkd.item())


@pytest.mark.parametrize(("discrepancy", "words"), FORMS)
def test_the_teacher_itself_has_no_difference_whatever_the_padding_holds(discrepancy, words):
    _, teacher = _states()
    same = teacher.clone()
    same[:, ~MASK] = 1e6
    options = {"discrepancy": discrepancy, "words": words}
    found = hidden_difference(same.unbind(), teacher.unbind(), MASK, **options)
    assert found.total.item() == pytest.approx(0, abs=1e-12)


def test_the_first_words_alone_serve_as_well():
    student, teacher = _states()
    whole, first = (
        hidden_difference(student.unbind(), states.unbind(), MASK, words="first")
        for states in (teacher, teacher[:, :, :1])
    )
    assert torch.equal(whole.total, first.total)


def test_no_real_word_and_low_precision():
    student, teacher = _states()
    nothing = hidden_difference(student.unbind(), teacher.unbind(), torch.zeros_like(MASK))
    assert (nothing.total.item(), nothing.count.item(), nothing.mean().item()) == (0, 0, 0)
    low = [x.bfloat16().unbind() for x in (student, teacher)]
    exact = [x.bfloat16().double().unbind() for x in (student, teacher)]
    assert hidden_difference(*low, MASK).total.item() == pytest.approx(
        hidden_difference(*exact, MASK).total.item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discrepancy": "l1"}, "unknown discrepancy 'l1'; allowed: l2, cosine"),
        ({"words": "last"}, "unknown words 'last'; allowed: all, first"),
        ({"student": 1}, "1 layers of the student, 2 of the teacher"),
        ({"width": 3}, "hidden states differ in width: student 4, teacher 3"),
        ({"mask": 4}, r"the mask has shape \(3, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    student, teacher = _states()
    options = {key: change[key] for key in ("discrepancy", "words") if key in change}
    ours = student[: change.get("student", L)].unbind()
    theirs = teacher[..., : change.get("width", H)].unbind()
    with pytest.raises(ValueError, match=message):
        hidden_difference(ours, theirs, MASK[:, : change.get("mask", N)], **options)
