"""The four relations of CKD's objective.

Source: Park, Kim, Yang, "Distilling Linguistic Context for Language Model Compression", EMNLP
2021: word relation (WR) and layer transforming relation (LTR), pair-wise and triple-wise, in the
forms and with the divisors of the code that its authors published.

B examples, L matched layers, N positions, H hidden size. The functions on hidden states return
the loss. The functions on relations, which a training loop uses, return sum and count separately:
both are added up over micro-batches and ranks, and divided once.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lkd_tune.losses.base import LossSum, check_hidden, check_mask, check_name, check_relations
from lkd_tune.losses.pairs import compare, pair_differences
from lkd_tune.losses.relations import (
    LayerRelations,
    WordRelations,
    layer_relations,
    word_relations,
)
from lkd_tune.losses.triples import angle_differences

DISTANCES = ("cosine", "l2")
DISCREPANCIES = ("kl", "l2", "l1", "smooth_l1")
VARIANTS = ("masked", "paper")


def word_relation_pair(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    distance: str = "cosine",
    discrepancy: str = "kl",
) -> Tensor:
    """Returns the pair-wise word relation loss, 0-dim.

    Args:
        student: Hidden states, (B, L, N, H).
        teacher: Of the matched layers, (B, L, N, H'); H' may differ, no gradient flows into it.
        mask: True (or 1) where a word is real, (B, N).
        distance: 'cosine': similarities; 'l2': squared distances over their mean in the matrix.
        discrepancy: 'kl' (cosine only): KL divergence of the student's softmax over the other
            words from the teacher's. 'l2', 'l1', 'smooth_l1': of the values themselves.

    Raises:
        ValueError: If shapes do not fit or a name is unknown.
    """
    check_hidden(student, teacher, mask)
    relations = (word_relations(student, mask), word_relations(teacher.detach(), mask))
    return wr_pair(*relations, mask, distance=distance, discrepancy=discrepancy).mean()


def word_relation_triple(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    window: int | None = 21,
    discrepancy: str = "l2",
    variant: str = "masked",
) -> Tensor:
    """Returns the triple-wise word relation loss, 0-dim.

    Args:
        student: Hidden states, (B, L, N, H).
        teacher: Of the matched layers, (B, L, N, H').
        mask: True (or 1) where a word is real, (B, N).
        window: Odd width of the neighbourhood of the centre word; None: all words.
        discrepancy: 'l2', 'l1' or 'smooth_l1' between the angles' cosines.
        variant: 'masked': triples of three real, distinct words. 'paper': the published form. It
            repeats the last position at the ends of the padded sequence, masks only the centre
            (with a window), and counts triples that hold a word twice with cosine 0.

    Raises:
        ValueError: If shapes do not fit, the window is even, or a name is unknown.
    """
    check_hidden(student, teacher, mask)
    relations = (word_relations(student, mask), word_relations(teacher.detach(), mask))
    return wr_triple(
        *relations, mask, window=window, discrepancy=discrepancy, variant=variant
    ).mean()


def layer_relation_pair(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    distance: str = "cosine",
    discrepancy: str = "kl",
) -> Tensor:
    """Returns the pair-wise layer transforming relation loss, 0-dim.

    As `word_relation_pair`, between the layers of each word instead of the words of each layer.
    """
    check_hidden(student, teacher, mask)
    relations = (layer_relations(student, mask), layer_relations(teacher.detach(), mask))
    return ltr_pair(*relations, mask, distance=distance, discrepancy=discrepancy).mean()


def layer_relation_triple(
    student: Tensor, teacher: Tensor, mask: Tensor, *, discrepancy: str = "l2"
) -> Tensor:
    """Returns the triple-wise layer transforming relation loss, 0-dim.

    As `word_relation_triple`, with all layers of a word instead of the words in a window.
    """
    check_hidden(student, teacher, mask)
    relations = (layer_relations(student, mask), layer_relations(teacher.detach(), mask))
    return ltr_triple(*relations, mask, discrepancy=discrepancy).mean()


def wr_pair(
    student: WordRelations,
    teacher: WordRelations,
    mask: Tensor,
    *,
    distance: str = "cosine",
    discrepancy: str = "kl",
) -> LossSum:
    """Returns the pair-wise word relation, summed; see `word_relation_pair`."""
    _check_pair(distance, discrepancy)
    _check_words(student, teacher, mask)
    real = mask.bool()[:, None]
    total = pair_differences(student, teacher, real, distance, discrepancy)
    return LossSum(total, partial(wr_pair_count, mask, student.sq_norm.shape[1]))


def wr_triple(
    student: WordRelations,
    teacher: WordRelations,
    mask: Tensor,
    *,
    window: int | None = 21,
    discrepancy: str = "l2",
    variant: str = "masked",
) -> LossSum:
    """Returns the triple-wise word relation, summed; see `word_relation_triple`.

    With a window, the paper variant also needs the teacher's relations at padded positions:
    `word_relations` computes them, stored targets lack them.
    """
    _check_triple(discrepancy, window, variant)
    _check_words(student, teacher, mask)
    if variant == "paper" and window is not None:
        theirs = teacher.sq_dist.detach()
        total = _published_window(student.sq_dist, theirs, mask, window, discrepancy)
    else:
        real = mask.bool()[:, None]
        total = angle_differences(student.sq_dist, teacher.sq_dist, real, discrepancy, window)
        if variant == "paper":
            total = total + _repeated_word(student.sq_dist, teacher.sq_dist, real, discrepancy)
    layers = student.sq_norm.shape[1]
    return LossSum(total, partial(wr_triple_count, mask, layers, window=window, variant=variant))


def ltr_pair(
    student: LayerRelations,
    teacher: LayerRelations,
    mask: Tensor,
    *,
    distance: str = "cosine",
    discrepancy: str = "kl",
) -> LossSum:
    """Returns the pair-wise layer transforming relation, summed; see `layer_relation_pair`."""
    _check_pair(distance, discrepancy)
    _check_layers(student, teacher, mask)
    real = mask.bool()[..., None]
    total = pair_differences(student, teacher, real, distance, discrepancy)
    return LossSum(total, partial(ltr_pair_count, mask, student.sq_norm.shape[-1]))


def ltr_triple(
    student: LayerRelations, teacher: LayerRelations, mask: Tensor, *, discrepancy: str = "l2"
) -> LossSum:
    """Returns the triple-wise layer transforming relation, summed; see `layer_relation_triple`."""
    _check_triple(discrepancy, None, "masked")
    _check_layers(student, teacher, mask)
    real = mask.bool()[..., None]
    layers = student.sq_norm.shape[-1]
    total = angle_differences(student.sq_dist, teacher.sq_dist, real, discrepancy)
    if layers >= 3:
        total = total + _repeated_word(student.sq_dist, teacher.sq_dist, real, discrepancy)
    return LossSum(total, partial(ltr_triple_count, mask, layers))


def wr_pair_count(mask: Tensor, layers: int) -> Tensor:
    """Returns the published divisor: all pairs of real words, a word with itself included."""
    return layers * mask.double().sum(-1).square().sum()


def wr_triple_count(mask: Tensor, layers: int, *, window: int | None, variant: str) -> Tensor:
    """Returns the number of triples: of distinct real words, or the published divisor."""
    real = mask.double()
    words = real.sum(-1)
    if variant == "paper":
        triples = words.pow(3) if window is None else words * window**2
        return layers * triples.sum()
    if window is None:
        others = (words[:, None] - 1) * real
    else:
        near = F.avg_pool1d(real[:, None], window, 1, window // 2)[:, 0] * window
        others = (near.round() - 1) * real
    return layers * (others * (others - 1)).clamp(min=0).sum()


def ltr_pair_count(mask: Tensor, layers: int) -> Tensor:
    """Returns the published divisor: all pairs of layers of real words; 0 for a single layer."""
    return mask.double().sum() * (layers**2 if layers >= 2 else 0)


def ltr_triple_count(mask: Tensor, layers: int) -> Tensor:
    """Returns the published divisor: all triples of layers of real words; 0 below 3 layers."""
    return mask.double().sum() * (layers**3 if layers >= 3 else 0)


def _repeated_word(student: Tensor, teacher: Tensor, real: Tensor, discrepancy: str) -> Tensor:
    """Returns the sum over triples (i; j, j), which the published form includes.

    Their cosine is 1, or 0 if i and j are equal vectors. So student and teacher differ only where
    two vectors are equal in one of them and distinct in the other.
    """
    pairs = real[..., :, None] & real[..., None, :]
    one = torch.ones((), dtype=student.dtype, device=student.device)
    each = compare(one, 0 * one, discrepancy)
    return ((student > 0) != (teacher > 0)).logical_and(pairs).sum() * each


def _published_window(
    student: Tensor, teacher: Tensor, mask: Tensor, window: int, discrepancy: str
) -> Tensor:
    """Returns the published windowed triple: slow, with (B, L, N, W, W) in memory, for parity."""
    length, radius = student.shape[-1], window // 2
    offsets = torch.arange(-radius, radius + 1, device=student.device)
    centre = torch.arange(length, device=student.device)
    near = (centre[:, None] + offsets).clamp(0, length - 1)  # (N, W)

    def cosines(sq_dist: Tensor) -> Tensor:
        sides = sq_dist[..., centre[:, None], near]  # (B, L, N, W)
        across = sq_dist[..., near[:, :, None], near[:, None, :]]
        inverse = torch.where(sides > 0, sides, torch.inf).rsqrt()
        return (sides[..., :, None] + sides[..., None, :] - across) * (
            0.5 * inverse[..., :, None] * inverse[..., None, :]
        )

    difference = compare(cosines(student), cosines(teacher), discrepancy)
    return difference.masked_fill(~mask.bool()[:, None, :, None, None], 0.0).sum()


def _check_words(student: WordRelations, teacher: WordRelations, mask: Tensor) -> None:
    check_relations(student, teacher)
    examples, _, length = student.sq_norm.shape
    check_mask(mask, examples, length)


def _check_layers(student: LayerRelations, teacher: LayerRelations, mask: Tensor) -> None:
    check_relations(student, teacher)
    examples, length, _ = student.sq_norm.shape
    check_mask(mask, examples, length)


def _check_pair(distance: str, discrepancy: str) -> None:
    check_name("distance", distance, DISTANCES)
    check_name("discrepancy", discrepancy, DISCREPANCIES)
    if discrepancy == "kl" and distance != "cosine":
        raise ValueError("discrepancy 'kl' requires distance 'cosine'; use l2, l1, smooth_l1")


def _check_triple(discrepancy: str, window: int | None, variant: str) -> None:
    check_name("discrepancy", discrepancy, [name for name in DISCREPANCIES if name != "kl"])
    if window is not None and (window < 3 or window % 2 == 0):
        raise ValueError(f"window {window} is not an odd number of at least 3 words")
    check_name("variant", variant, VARIANTS)
