"""Differences between student and teacher in the angles that triples of vectors form.

For a centre i and two others j, k, with D the squared distances:

    cos(i; j, k) = (D_ij + D_ik − D_jk) / (2 √(D_ij D_ik))

The loss is a sum over all triples, so its gradient with respect to D is computed in the forward
pass, one slice of triples at a time. Only that gradient, as large as D, is kept for the backward
pass. No tensor has one element for each triple.

B examples, L layers, N positions; n is the number of vectors compared with each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lkd_tune.losses.chunks import batch_chunks
from lkd_tune.losses.relations import gpu_kernels

# Elements of the distances in a chunk. The work takes many short operations, so chunks are larger
# than what fits a CPU's cache.
_CHUNK_ELEMENTS = 2**19


def angle_differences(
    student: Tensor, teacher: Tensor, real: Tensor, discrepancy: str, window: int | None = None
) -> Tensor:
    """Returns the discrepancy between the cosines of student and teacher, summed over all triples.

    A triple counts if its three vectors are real and distinct and, with a window, both others lie
    at most window // 2 from the centre. An angle with a side of length 0 has cosine 0.

    Args:
        student: Squared distances, (B, …, n, n), exactly 0 for equal vectors.
        teacher: The same for the matched vectors; no gradient flows into it.
        real: True where a vector exists, bool, with as many dimensions as (B, …, n) and
            broadcastable to it.
        discrepancy: 'l2', 'l1' or 'smooth_l1'.
        window: Odd width; None: all triples.

    Returns:
        The sum, 0-dim, over ordered triples (i; j, k) and (i; k, j).
    """
    return _AngleDifferences.apply(student, teacher, real, discrepancy, window)


class _AngleDifferences(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, real: Tensor, discrepancy: str, window: Any
    ) -> Tensor:
        student, teacher = student.detach(), teacher.detach().to(student.dtype)
        if (kernels := gpu_kernels(student)) is not None:
            total, gradient = kernels.angle_sum(student, teacher, real, discrepancy, window)
            ctx.save_for_backward(gradient)
            return total
        real = real.expand(len(student), *real.shape[1:])
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        total = student.new_zeros(())
        for part in batch_chunks(student, _CHUNK_ELEMENTS):
            values = (student[part], teacher[part], real[part], discrepancy)
            if window is None or window // 2 >= student.shape[-1] - 1:
                loss, slope = _all_triples(*values, gradient is not None)
            else:
                loss, slope = _windowed(*values, window, gradient is not None)
            if gradient is not None and slope is not None:
                gradient[part] = slope
            total = total + loss
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None, None, None, None


def _all_triples(
    student: Tensor, teacher: Tensor, real: Tensor, discrepancy: str, need_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Returns loss and gradient; one slice is one centre i with all (j, k): (…, n, n)."""
    inverse, inverse_t = _inverse_lengths(student, real), _inverse_lengths(teacher, real)
    total = student.new_zeros(())
    gradient = torch.zeros_like(student) if need_gradient else None
    for i in range(student.shape[-1]):
        inv = inverse[..., i, :]  # (…, n)
        cosine = _cosines(student[..., i, :], student, inv)
        theirs = _cosines(teacher[..., i, :], teacher, inverse_t[..., i, :])
        # j and k are distinct: (i; j, j) has cosine 1 in both, unless a side has length 0.
        cosine.diagonal(dim1=-2, dim2=-1).zero_()
        theirs.diagonal(dim1=-2, dim2=-1).zero_()
        loss, slope = _discrepancy(cosine, theirs, discrepancy)
        total = total + loss
        if gradient is not None:
            # d cos / d D_jk = −1/2 · inv_j inv_k;  d cos / d D_ij = 1/2 (inv_j inv_k − cos inv_j²),
            # and D_ik gets what D_ij gets from the mirrored triple.
            pairs = inv[..., :, None] * inv[..., None, :]
            pairs.mul_(slope)
            gradient.add_(pairs, alpha=-0.5)
            sides = pairs.sum(-1) - (slope.mul_(cosine)).sum(-1) * inv.square()
            gradient[..., i, :] += sides
    return total, gradient


def _windowed(
    student: Tensor,
    teacher: Tensor,
    real: Tensor,
    discrepancy: str,
    window: int,
    need_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Returns loss and gradient with a window.

    One slice is the offset a of j from all centres, with all offsets b > a of k: (…, N, W).
    """
    radius = window // 2
    ours = _Windows(student, real, radius)
    theirs = _Windows(teacher, real, radius)
    total = student.new_zeros(())
    gradient = torch.zeros_like(ours.padded) if need_gradient else None
    grad = _window_view(gradient, window) if gradient is not None else None
    grad_sides = torch.zeros_like(ours.sides)  # (…, N, W): gradient of D between centre and a
    for a in range(window - 1):
        if a == radius:
            continue  # the centre itself
        rest = slice(a + 1, window)
        cosine, found = ours.cosines(a, rest), theirs.cosines(a, rest)
        loss, slope = _discrepancy(cosine, found, discrepancy)
        total = total + loss
        if grad is not None:
            inv_a, inv = ours.inverse[..., a, None], ours.inverse[..., rest]
            cosine.mul_(slope)  # slope · cos
            pairs = slope.mul_(inv_a).mul_(inv)  # slope · inv_a inv_b
            grad[..., a, rest].add_(pairs, alpha=-0.5)
            grad_sides[..., rest].add_(pairs).sub_(cosine * inv.square())
            grad_sides[..., a] += pairs.sum(-1) - cosine.sum(-1) * ours.inverse[..., a].square()
    if gradient is None or grad is None:
        return 2 * total, None
    # Offset by offset: windows overlap, so the view can't be added to as a whole.
    for a in range(window):
        grad[..., radius, a].add_(grad_sides[..., a], alpha=0.5)
    length = student.shape[-1]
    inner = slice(radius, radius + length)
    # Only (a, b) with a < b were visited; each stands for two mirrored triples.
    return 2 * total, 2 * gradient[..., inner, inner]


class _Windows:
    """The squared distances around each centre.

    Attributes:
        padded: Distances with `radius` zeros on all sides, (…, N + 2r, N + 2r).
        pairs: View of it, between the words at offsets a and b of centre i, (…, N, W, W).
        sides: Between the centre and the word at offset a, (…, N, W).
        inverse: 1 / √sides, 0 where there is no such word or it equals the centre.
    """

    def __init__(self, sq_dist: Tensor, real: Tensor, radius: int):
        self.padded = torch.nn.functional.pad(sq_dist, (radius,) * 4)
        window = 2 * radius + 1
        self.pairs = _window_view(self.padded, window)
        self.sides = self.pairs[..., radius, :].contiguous()
        near = torch.nn.functional.pad(real, (radius, radius)).unfold(-1, window, 1)
        exists = near & real[..., None]
        self.inverse = torch.where(exists & (self.sides > 0), self.sides, torch.inf).rsqrt_()

    def cosines(self, a: int, rest: slice) -> Tensor:
        """Returns the cosines between the word at offset a and those at `rest`, (…, N, rest)."""
        cosine = self.sides[..., rest] - self.pairs[..., a, rest]
        cosine += self.sides[..., a, None]
        cosine *= self.inverse[..., rest]
        return cosine.mul_(self.inverse[..., a, None] * 0.5)


def _window_view(padded: Tensor, window: int) -> Tensor:
    """Returns the (window × window) blocks along the diagonal as a view, (…, N, W, W)."""
    length = padded.shape[-1] - window + 1
    *outer, row, column = padded.stride()
    return padded.as_strided(
        (*padded.shape[:-2], length, window, window), (*outer, row + column, row, column)
    )


def _inverse_lengths(sq_dist: Tensor, real: Tensor) -> Tensor:
    """Returns 1 / √D, 0 where a vector is missing or the two are equal."""
    exists = real[..., :, None] & real[..., None, :]
    return torch.where(exists & (sq_dist > 0), sq_dist, torch.inf).rsqrt_()


def _cosines(sides: Tensor, sq_dist: Tensor, inverse: Tensor) -> Tensor:
    cosine = sides[..., :, None] - sq_dist
    cosine += sides[..., None, :]
    cosine *= inverse[..., :, None]
    return cosine.mul_(inverse[..., None, :] * 0.5)


def _discrepancy(student: Tensor, teacher: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Returns the sum of the discrepancies, and the derivative of each by the student's value."""
    difference = student - teacher
    if kind == "l2":
        return difference.square().sum(), difference.mul_(2)
    if kind == "l1":
        return difference.abs().sum(), difference.sign_()
    size = difference.abs()
    loss = torch.where(size < 1, 0.5 * size.square(), size - 0.5)
    return loss.sum(), difference.clamp_(-1, 1)
