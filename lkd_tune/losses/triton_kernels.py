"""The sums of `triples.py` and `pairs.py` on a GPU, each in one kernel, written in Triton.

On a GPU a small operation takes longer to launch than to run, and `triples.py` and `pairs.py`
launch hundreds of them in each step. Here each row of distances is one program. It visits all
triples, or pairs, that contain the row, and writes the row's share of the loss and the gradient of
the whole loss with respect to the row. No two programs write to the same place, so sums have one
order and results are deterministic.

M matrices of n vectors each; the formulas are those of `triples.py` and `pairs.py`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_KINDS = {"l2": 0, "l1": 1, "smooth_l1": 2}


def angle_sum(
    student: Tensor, teacher: Tensor, real: Tensor, discrepancy: str, window: int | None
) -> tuple[Tensor, Tensor]:
    """Returns the sum over all triples and its gradient with respect to the student's distances.

    Args:
        student: Squared distances, float32, (…, n, n).
        teacher: The same for the matched vectors.
        real: True where a vector exists, bool, (…, n), broadcastable.
        discrepancy: 'l2', 'l1' or 'smooth_l1'.
        window: Odd width; None: all triples.
    """
    size = student.shape[-1]
    ours, theirs, exists = student.contiguous(), teacher.contiguous(), _expanded(real, student)
    losses, gradient = ours.new_empty(ours.shape[:-1]), torch.empty_like(ours)
    radius = size if window is None else window // 2
    block = triton.next_power_of_2(size)
    kind = _KINDS[discrepancy]
    _angles[(losses.numel(),)](
        ours, theirs, exists, losses, gradient, size, radius, block, kind, num_warps=_warps(block)
    )
    return losses.sum(), gradient


def pair_sum(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the sum of KL divergences between rows of cosines, and its two gradients.

    Args:
        student: Squared norms (…, n) and squared distances (…, n, n), float32.
        teacher: The same for the matched vectors.
        real: True where a vector exists, bool, (…, n), broadcastable.

    Returns:
        The sum, 0-dim, and its gradients with respect to the student's norms and distances.
    """
    norms, distances = (x.contiguous() for x in student)
    norms_t, distances_t = (x.contiguous() for x in teacher)
    exists, size = _expanded(real, distances), distances.shape[-1]
    losses, of_norm = torch.empty_like(norms), torch.empty_like(norms)
    of_distance, of_column = torch.empty_like(distances), torch.empty_like(distances)
    block = triton.next_power_of_2(size)
    _pairs[(losses.numel(),)](
        norms, distances, norms_t, distances_t, exists,
        losses, of_norm, of_distance, of_column,
        size, torch.finfo(torch.float32).tiny ** 0.5, block, num_warps=_warps(block),
    )  # fmt: skip
    return losses.sum(), of_norm + of_column.sum(-2), of_distance


def try_out(on: torch.device) -> None:
    """Compiles the kernels and runs them on tiny input.

    Raises:
        Exception: Whatever Triton raises if it can't.
    """
    distances = torch.ones(1, 4, 4, device=on)
    real = torch.ones(1, 4, dtype=torch.bool, device=on)
    angle_sum(distances, distances, real, "l2", None)
    pair_sum((distances[:, 0], distances), (distances[:, 0], distances), real)


def _expanded(real: Tensor, matrices: Tensor) -> Tensor:
    return real.expand(matrices.shape[:-1]).to(torch.uint8).contiguous()


def _warps(block: int) -> int:
    return max(1, min(8, block // 64))


@triton.jit
def _inverse(value, valid):  # type: ignore[no-untyped-def]
    # 1 / √D, 0 where it is not valid or D is 0.
    positive = valid & (value > 0)
    return tl.where(positive, tl.rsqrt(tl.where(positive, value, 1.0)), 0.0)


@triton.jit
def _compare(difference, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    # The discrepancy and its derivative.
    if KIND == 0:
        return difference * difference, 2.0 * difference
    sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
    size = tl.abs(difference)
    if KIND == 1:
        return size, sign
    small = size < 1.0
    return (
        tl.where(small, 0.5 * size * size, size - 0.5),
        tl.where(small, difference, sign),
    )


@triton.jit
def _angles(  # type: ignore[no-untyped-def]
    student, teacher, real, losses, gradient, size, radius, BLOCK: tl.constexpr, KIND: tl.constexpr
):
    # Row j of a matrix: D_jk for all k.
    row = tl.program_id(0).to(tl.int64)
    j = (row % size).to(tl.int32)
    first = row - j  # row 0 of the same matrix
    k = tl.arange(0, BLOCK)
    inside = k < size
    here = tl.load(real + row) != 0
    there = inside & (tl.load(real + first + k, mask=inside, other=0) != 0) & (k != j) & here
    own = tl.load(student + row * size + k, mask=inside, other=0.0)
    own_t = tl.load(teacher + row * size + k, mask=inside, other=0.0)
    near = there & (tl.abs(k - j) <= radius)
    inverse, inverse_t = _inverse(own, near), _inverse(own_t, near)
    loss, slope = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for i in range(tl.maximum(0, j - radius), tl.minimum(size, j + radius + 1)):
        # i with j and k: the centre of an angle, or the other end of one whose centre is j.
        third = (tl.load(real + first + i) != 0) & (i != j)
        side, side_t = tl.load(student + row * size + i), tl.load(teacher + row * size + i)
        inv_side, inv_side_t = _inverse(side, third), _inverse(side_t, third)
        across = tl.load(student + (first + i) * size + k, mask=inside, other=0.0)
        across_t = tl.load(teacher + (first + i) * size + k, mask=inside, other=0.0)
        valid = there & third & (k != i)
        # Centre i: d cos / d D_jk = −1/2 · inv_ij inv_ik.
        counted = valid & (tl.abs(k - i) <= radius)
        inv = _inverse(across, counted)
        cosine = (side + across - own) * (0.5 * inv_side * inv)
        theirs = (side_t + across_t - own_t) * (0.5 * inv_side_t * _inverse(across_t, counted))
        each, by = _compare(tl.where(counted, cosine - theirs, 0.0), KIND)
        loss += each
        slope -= 0.5 * by * inv_side * inv
        # Centre j: d cos / d D_jk = 1/2 (inv_jk inv_ji − cos inv_jk²), and twice: also of (k, i).
        cosine = (own + side - across) * (0.5 * inverse * inv_side)
        theirs = (own_t + side_t - across_t) * (0.5 * inverse_t * inv_side_t)
        _, by = _compare(tl.where(valid & near, cosine - theirs, 0.0), KIND)
        slope += by * (inverse * inv_side - cosine * inverse * inverse)
    tl.store(losses + row, tl.sum(loss, 0))
    tl.store(gradient + row * size + k, slope, mask=inside)


@triton.jit
def _log_softmax(value, valid):  # type: ignore[no-untyped-def]
    # Over the valid elements; undefined elsewhere.
    most = tl.max(tl.where(valid, value, -2.0), 0)
    total = tl.sum(tl.where(valid, tl.exp(value - most), 0.0), 0)
    return value - most - tl.log(tl.where(total > 0, total, 1.0))


@triton.jit
def _pairs(  # type: ignore[no-untyped-def]
    norms, distances, norms_t, distances_t, real,
    losses, of_norm, of_distance, of_column,
    size, tiny, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    j = (row % size).to(tl.int32)
    first = row - j
    k = tl.arange(0, BLOCK)
    inside = k < size
    others = inside & (tl.load(real + first + k, mask=inside, other=0) != 0)
    others = others & (k != j) & (tl.load(real + row) != 0)
    norm, norm_t = tl.load(norms + row), tl.load(norms_t + row)
    their, their_t = (
        tl.load(norms + first + k, mask=inside, other=0.0),
        tl.load(norms_t + first + k, mask=inside, other=0.0),
    )
    inv, inv_t = _inverse(norm, norm > tiny), _inverse(norm_t, norm_t > tiny)
    inverse, inverse_t = _inverse(their, their > tiny), _inverse(their_t, their_t > tiny)
    own = tl.load(distances + row * size + k, mask=inside, other=0.0)
    own_t = tl.load(distances_t + row * size + k, mask=inside, other=0.0)
    cosine = (norm + their - own) * (0.5 * inv * inverse)
    cosine_t = (norm_t + their_t - own_t) * (0.5 * inv_t * inverse_t)
    log_ours, log_theirs = _log_softmax(cosine, others), _log_softmax(cosine_t, others)
    ours = tl.where(others, tl.exp(log_ours), 0.0)
    theirs = tl.where(others, tl.exp(log_theirs), 0.0)
    tl.store(losses + row, tl.sum(tl.where(others, theirs * (log_theirs - log_ours), 0.0), 0))
    by = ours - theirs  # the derivative by the student's cosine
    pull = 0.5 * by * inv * inverse
    tl.store(of_distance + row * size + k, -pull, mask=inside)
    # d cos / d |x_j|² = 1/2 (inv_j inv_k − cos inv_j²). The share of the other end, by column, is
    # summed when all rows are done.
    tl.store(of_norm + row, tl.sum(pull - 0.5 * by * cosine * inv * inv, 0))
    tl.store(of_column + row * size + k, pull - 0.5 * by * cosine * inverse * inverse, mask=inside)
