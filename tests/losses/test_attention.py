"""Relations of queries, keys and values: their definition as loops, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch

from lkd_tune.losses import attention
from lkd_tune.losses.attention import AttentionVectors, attention_count, attention_difference

torch.set_num_threads(1)

B, N = 3, 5
OURS, THEIRS = 4, 8  # widths
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [1, 0, 0, 0, 0]]).bool()
FORMS = [(v, d) for v in attention.PAIRS for d in attention.DISCREPANCIES]


def _vectors(width: int, seed: int, layers: int = 2, heads: int = 2, **options) -> AttentionVectors:
    generator = torch.Generator().manual_seed(seed)
    options = {"dtype": torch.float64, **options}
    values = 2 * torch.randn(3, layers, B, N, width, generator=generator, **options)
    return AttentionVectors(*(each.unbind() for each in values), heads=heads)


def _both(**options) -> tuple[AttentionVectors, AttentionVectors]:
    return _vectors(OURS, 0, heads=1, **options), _vectors(THEIRS, 1, **options)


def _scores(left, right, word: int, real: list[int], head: int, heads: int) -> list[float]:
    size = left.shape[-1] // heads
    own = slice(head * size, (head + 1) * size)
    return [float(left[word, own] @ right[j, own]) / math.sqrt(size) for j in real]


def _softmax(scores: list[float]) -> list[float]:
    total = sum(map(math.exp, scores))
    return [math.exp(score) / total for score in scores]


@pytest.mark.parametrize("heads", [None, 1, 4])
@pytest.mark.parametrize(("variant", "discrepancy"), FORMS)
def test_sum_and_count_are_those_of_the_definition(variant, discrepancy, heads):
    student, teacher = _both()
    number = heads or 2
    pairs = attention.PAIRS[variant]
    total, count = 0.0, 0
    for layer in range(2):
        for example in range(B):
            real = MASK[example].nonzero()[:, 0].tolist()
            for word in real:
                count += 1
                for left, right in pairs:
                    for head in range(number):
                        ours, theirs = (
                            _scores(
                                getattr(model, left)[layer][example],
                                getattr(model, right)[layer][example],
                                word,
                                real,
                                head,
                                number,
                            )
                            for model in (student, teacher)
                        )
                        if discrepancy == "l2":
                            own = [(a - b) ** 2 for a, b in zip(ours, theirs, strict=True)]
                            value = sum(own) / len(own)
                        else:
                            p, q = _softmax(ours), _softmax(theirs)
                            value = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
                        total += value / number / len(pairs)
    options = {"variant": variant, "discrepancy": discrepancy, "heads": heads}
    found = attention_difference(student, teacher, MASK, **options)
    assert found.total.item() == pytest.approx(total)
    assert found.count.item() == count == attention_count(MASK, 2)
    assert found.count.dtype == torch.float64


@pytest.mark.parametrize("chunk", [1, 2**18])
@pytest.mark.parametrize(("variant", "discrepancy"), FORMS)
def test_gradients_are_finite_differences(variant, discrepancy, chunk, monkeypatch):
    monkeypatch.setattr(attention, "_CHUNK_ELEMENTS", chunk)
    student, teacher = _both(layers=1)
    inputs = [each[0].requires_grad_() for each in student[:3]]

    def loss(*vectors: torch.Tensor) -> torch.Tensor:
        own = AttentionVectors(*((each,) for each in vectors), heads=1)
        options = {"variant": variant, "discrepancy": discrepancy}
        return attention_difference(own, teacher, MASK, **options).mean()

    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)
    loss(*inputs).backward()
    assert all((each.grad[~MASK] == 0).all() for each in inputs)


@pytest.mark.parametrize(("variant", "discrepancy"), FORMS)
def test_the_teacher_itself_has_no_difference_whatever_the_padding_holds(variant, discrepancy):
    _, teacher = _both()
    same = [tuple(x.masked_fill(~MASK[..., None], 1e3) for x in each) for each in teacher[:3]]
    options = {"variant": variant, "discrepancy": discrepancy}
    found = attention_difference(AttentionVectors(*same, heads=1), teacher, MASK, **options)
    assert found.total.item() == pytest.approx(0, abs=1e-10)


def test_the_students_own_heads_do_not_matter():
    student, teacher = _both()
    one, other = (
        attention_difference(student._replace(heads=heads), teacher, MASK) for heads in (1, 4)
    )
    assert torch.equal(one.total, other.total)


def test_no_real_word_and_low_precision():
    student, teacher = _both()
    for vectors in student[0]:
        vectors.requires_grad_()
    nothing = attention_difference(student, teacher, torch.zeros_like(MASK))
    nothing.mean().backward()
    assert (nothing.total.item(), nothing.count.item()) == (0, 0)
    assert torch.isfinite(student.query[0].grad).all()
    low, exact = (
        [
            AttentionVectors(
                *(tuple(x.detach().bfloat16().to(dtype) for x in each) for each in model[:3]),
                heads=model.heads,
            )
            for model in (student, teacher)
        ]
        for dtype in (torch.bfloat16, torch.float64)
    )
    assert attention_difference(*low, MASK).total.item() == pytest.approx(
        attention_difference(*exact, MASK).total.item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "scores"}, "unknown variant 'scores'; allowed: self_relations, distributions"),
        ({"discrepancy": "l1"}, "unknown discrepancy 'l1'; allowed: kl, l2"),
        ({"heads": 3}, "3 relation heads do not divide vectors of 4 elements"),
        ({"heads": 8}, "8 relation heads do not divide vectors of 4 elements"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attention_difference(*_both(), MASK, **options)
    with pytest.raises(ValueError, match="1 layers of the student, 2 of the teacher"):
        attention_difference(_both(layers=1)[0], _both()[1], MASK)
