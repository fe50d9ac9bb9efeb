"""Relations between the queries, keys and values of a layer, in teacher and student.

Vectors are divided into relation heads, whose number need not be that of the attention heads. So
neither widths nor numbers of heads of the two models have to agree.

Sources: Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation", Findings of ACL
2021 ('self_relations'); Wang et al., "MiniLM", NeurIPS 2020 ('distributions'); Jiao et al.,
"TinyBERT", Findings of EMNLP 2020 (discrepancy 'l2' of scaled products). Unlike MiniLMv2, a term is
the mean of its relations, not their sum.

B examples, N positions, A channels of all heads together, R relation heads.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lkd_tune.losses.base import LossSum, check_mask, check_name
from lkd_tune.losses.chunks import batch_chunks, sum_in_chunks
from lkd_tune.losses.relations import as_exact, full_precision

# The vectors whose products are compared.
PAIRS = {
    "self_relations": (("query", "query"), ("key", "key"), ("value", "value")),
    "distributions": (("query", "key"), ("value", "value")),
}
DISCREPANCIES = ("kl", "l2")
# Weight 0 in a softmax and, unlike −inf, no NaN in an example without any real word.
_MASKED_SCORE = -1e30
# Elements of the products in a chunk; about six such tensors exist at once.
_CHUNK_ELEMENTS = 2**18


class AttentionVectors(NamedTuple):
    """Queries, keys and values of some layers of a model, before they are divided into heads.

    Attributes:
        query: Of each layer, (B, N, A).
        key: Likewise.
        value: Likewise.
        heads: The model's attention heads.
    """

    query: tuple[Tensor, ...]
    key: tuple[Tensor, ...]
    value: tuple[Tensor, ...]
    heads: int


def attention_difference(
    student: AttentionVectors,
    teacher: AttentionVectors,
    mask: Tensor,
    *,
    variant: str = "self_relations",
    discrepancy: str = "kl",
    heads: int | None = None,
) -> LossSum:
    """Returns the difference of the relations, summed over layers and real words.

    A word's difference is the mean over relation heads and relations.

    Args:
        student: Of the matched layers.
        teacher: Of the matched layers; no gradient flows into it.
        mask: True (or 1) where a word is real, (B, N).
        variant: A key of `PAIRS`.
        discrepancy: 'kl': KL divergence of the student's softmax over the real words from the
            teacher's. 'l2': squared difference of the scaled products, mean over the real words.
        heads: R. Default: the teacher's attention heads.

    Raises:
        ValueError: If shapes do not fit, R does not divide a width, or a name is unknown.
    """
    check_name("variant", variant, PAIRS)
    check_name("discrepancy", discrepancy, DISCREPANCIES)
    heads, layers = heads or teacher.heads, len(student.query)
    if layers != len(teacher.query):
        raise ValueError(f"{layers} layers of the student, {len(teacher.query)} of the teacher")
    for model in (student, teacher):
        check_mask(mask, *model.query[0].shape[:2])
        if model.query[0].shape[-1] % heads:
            width = model.query[0].shape[-1]
            raise ValueError(f"{heads} relation heads do not divide vectors of {width} elements")
    total = torch.zeros((), device=mask.device)
    for left, right in PAIRS[variant]:
        vectors = (getattr(model, side) for model in (student, teacher) for side in (left, right))
        for ours in zip(*vectors, strict=True):
            total = total + _RelationDifferences.apply(*ours, mask.bool(), heads, discrepancy)
    total = total / (heads * len(PAIRS[variant]))
    return LossSum(total, partial(attention_count, mask, layers))


def attention_count(mask: Tensor, layers: int) -> Tensor:
    """Returns the number of compared rows of relations, float64: words times layers."""
    return layers * mask.double().sum()


class _RelationDifferences(torch.autograd.Function):
    """The sum over the words and heads of one relation of a layer.

    As in `losses.pairs`, the gradient is computed in the forward pass, one chunk of the batch at a
    time: autograd would keep several tensors (B, R, N, N) for each relation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        right: Tensor,
        teacher_left: Tensor,
        teacher_right: Tensor,
        mask: Tensor,
        heads: int,
        discrepancy: str,
    ) -> Tensor:
        def of_chunk(part: slice, ours: tuple[Tensor, ...]) -> Tensor:
            theirs = (teacher_left[part].detach(), teacher_right[part].detach())
            return _relation_sum(ours, theirs, mask[part], heads, discrepancy)

        chunks = batch_chunks(left, _CHUNK_ELEMENTS, heads * mask.shape[1] ** 2)
        with full_precision(left.device.type):
            total, gradients = sum_in_chunks(
                (left, right), chunks, of_chunk, need_gradient=any(ctx.needs_input_grad[:2])
            )
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Any:
        scaled = (gradient * outer.to(gradient.dtype) for gradient in ctx.saved_tensors)
        return *scaled, None, None, None, None, None


def _relation_sum(
    student: tuple[Tensor, ...],
    teacher: tuple[Tensor, ...],
    real: Tensor,
    heads: int,
    discrepancy: str,
) -> Tensor:
    """Returns the sum over a chunk; student and teacher are the two sides of the products."""
    ours, theirs = (_scaled_products(sides[0], sides[1], heads) for sides in (student, teacher))
    pairs = (real[:, :, None] & real[:, None, :])[:, None]  # (B, 1, N, N)
    if discrepancy == "kl":
        keys = real[:, None, None, :]
        log_ours, log_theirs = (
            each.masked_fill(~keys, _MASKED_SCORE).log_softmax(-1) for each in (ours, theirs)
        )
        divergence = log_theirs.exp() * (log_theirs - log_ours)
        return divergence.masked_fill(~pairs, 0.0).sum()
    words = real.sum(-1).clamp(min=1)[:, None, None, None]
    return ((ours - theirs).square() / words).masked_fill(~pairs, 0.0).sum()


def _scaled_products(left: Tensor, right: Tensor, heads: int) -> Tensor:
    """Returns the products of all pairs of words over the root of a head's width, (B, R, N, N)."""
    ours, others = (
        as_exact(vectors).unflatten(-1, (heads, -1)).transpose(1, 2) for vectors in (left, right)
    )
    return ours @ others.transpose(-1, -2) * ours.shape[-1] ** -0.5
