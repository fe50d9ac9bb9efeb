"""Differences between student and teacher in similarities or distances of pairs of vectors.

The loss is a sum, so its gradient with respect to the relations is computed in the forward pass,
one chunk of the batch at a time. Only that gradient is kept for the backward pass; autograd would
keep four tensors of the size of the distances.

B examples; n is the number of vectors compared with each other.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lkd_tune.losses.chunks import batch_chunks, sum_in_chunks
from lkd_tune.losses.relations import LayerRelations, WordRelations, gpu_kernels

# Similarities lie in [−1, 1]. This value has weight 0 in a softmax and, unlike −inf, gives no NaN
# in a row without any real word.
_MASKED_SIMILARITY = -1e4
# Elements of the distances in a chunk; about ten such tensors exist at once.
_CHUNK_ELEMENTS = 2**17


def pair_differences(
    student: WordRelations | LayerRelations,
    teacher: WordRelations | LayerRelations,
    real: Tensor,
    distance: str,
    discrepancy: str,
) -> Tensor:
    """Returns the difference between student and teacher, summed over pairs of vectors, 0-dim.

    A vector is not paired with itself.

    Args:
        student: Squared norms (B, …, n) and distances (B, …, n, n).
        teacher: The same for the matched vectors; no gradient flows into it.
        real: True where a vector exists, bool, with as many dimensions as (B, …, n) and
            broadcastable to it.
        distance: 'cosine': similarities; 'l2': squared distances over the mean of the positive
            ones in their own matrix (n, n).
        discrepancy: 'kl' (cosine only): KL divergence of the student's softmax over each row from
            the teacher's. 'l2', 'l1', 'smooth_l1': of the values themselves.
    """
    return _PairDifferences.apply(
        student.sq_norm, student.sq_dist, teacher, real, distance, discrepancy
    )


def compare(student: Tensor, teacher: Tensor, discrepancy: str) -> Tensor:
    """Returns the discrepancy 'l2', 'l1' or 'smooth_l1' of each element."""
    form = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}[discrepancy]
    return form(student, teacher, reduction="none")


class _PairDifferences(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sq_norm: Tensor,
        sq_dist: Tensor,
        teacher: WordRelations | LayerRelations,
        real: Tensor,
        distance: str,
        discrepancy: str,
    ) -> Tensor:
        kernels = gpu_kernels(sq_dist) if discrepancy == "kl" else None
        if kernels is not None:
            values = (sq_norm, sq_dist), (teacher.sq_norm, teacher.sq_dist)
            total, *found = kernels.pair_sum(*values, real)
            ctx.save_for_backward(*found)
            return total
        pairs = real[..., :, None] & real[..., None, :]

        def of_chunk(part: slice, ours: tuple[Tensor, ...]) -> Tensor:
            theirs = (teacher.sq_norm[part].detach(), teacher.sq_dist[part].detach())
            return _pair_sum(ours, theirs, pairs[part], distance, discrepancy)

        total, gradients = sum_in_chunks(
            (sq_norm, sq_dist),
            batch_chunks(sq_dist, _CHUNK_ELEMENTS),
            of_chunk,
            need_gradient=any(ctx.needs_input_grad[:2]),
        )
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Any:
        return *(gradient * outer for gradient in ctx.saved_tensors), None, None, None, None


def _pair_sum(
    student: tuple[Tensor, ...],
    teacher: tuple[Tensor, ...],
    pairs: Tensor,
    distance: str,
    discrepancy: str,
) -> Tensor:
    """Returns the sum over a chunk; student and teacher are squared norms and distances."""
    size = student[1].shape[-1]
    # A vector with itself is left out: student and teacher do not differ there.
    others = pairs & ~torch.eye(size, dtype=torch.bool, device=pairs.device)
    if discrepancy == "kl":
        log_student = _cosine(*student).masked_fill(~others, _MASKED_SIMILARITY).log_softmax(-1)
        log_teacher = _cosine(*teacher).masked_fill(~others, _MASKED_SIMILARITY).log_softmax(-1)
        divergence = log_teacher.exp() * (log_teacher - log_student)
        return divergence.masked_fill(~others, 0.0).sum()
    if distance == "cosine":
        ours, theirs = _cosine(*student), _cosine(*teacher)
    else:
        ours, theirs = _divide_by_mean(student[1], pairs), _divide_by_mean(teacher[1], pairs)
    return compare(ours, theirs, discrepancy).masked_fill(~others, 0.0).sum()


def _cosine(sq_norm: Tensor, sq_dist: Tensor) -> Tensor:
    """Returns cosine similarities, (…, n, n); 0 with a vector of length 0."""
    sums = sq_norm[..., :, None] + sq_norm[..., None, :]
    tiny = torch.finfo(sq_norm.dtype).tiny ** 0.5
    inverse = torch.where(sq_norm > tiny, sq_norm, torch.inf).rsqrt()
    return (sums - sq_dist) * (0.5 * inverse[..., :, None] * inverse[..., None, :])


def _divide_by_mean(sq_dist: Tensor, pairs: Tensor) -> Tensor:
    """Returns squared distances divided by the mean of the positive ones in their matrix."""
    positive = pairs & (sq_dist > 0)
    total = sq_dist.masked_fill(~positive, 0.0).sum((-2, -1), keepdim=True)
    number = positive.sum((-2, -1), keepdim=True).clamp(min=1)
    return sq_dist / torch.where(total > 0, total / number, 1.0)
