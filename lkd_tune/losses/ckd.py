"""The five terms of CKD's objective.

Source: Park, Kim, Yang, "Distilling Linguistic Context for Language Model Compression", EMNLP
2021: word relation (WR) and layer transforming relation (LTR), pair-wise and triple-wise, and the
logit loss; in the forms and with the divisors that its authors published as code.

B examples, L matched layers, N positions, H hidden size. The functions on hidden states return
the loss. Those on relations, which a training loop uses, return sum and count apart, so that both
can be added up over micro-batches and ranks and divided once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

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


@dataclass(frozen=True)
class LossSum:
    """A loss that is not divided yet.

    Attributes:
        total: Sum over all compared pairs, triples or examples, 0-dim.
        counting: Gives `count`. A training loop knows it already, and on a GPU small operations
            take longer to start than to run.
    """

    total: Tensor
    counting: Callable[[], Tensor]

    @property
    def count(self) -> Tensor:
        """What to divide by, 0-dim; no gradient."""
        return self.counting()

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.total + other.total, lambda: self.count + other.count)

    def mean(self) -> Tensor:
        """Returns total / count, 0 where nothing was compared."""
        return self.total / self.count.clamp(min=1).to(self.total.dtype)


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
            words from the teacher's; 'l2', 'l1', 'smooth_l1' between the values themselves.

    Raises:
        ValueError: If shapes do not fit or a name is not known.
    """
    _check_hidden(student, teacher, mask)
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
        window: Odd width of the neighbourhood of the centre word; none: all words.
        discrepancy: 'l2', 'l1' or 'smooth_l1' between the angles' cosines.
        variant: 'masked': triples of three real, distinct words. 'paper': the published form; at
            the ends of the padded sequence it repeats the last position, it masks the centre
            alone (with a window), and triples with a word twice count with cosine 0.

    Raises:
        ValueError: If shapes do not fit, the window is even, or a name is not known.
    """
    _check_hidden(student, teacher, mask)
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
    _check_hidden(student, teacher, mask)
    relations = (layer_relations(student, mask), layer_relations(teacher.detach(), mask))
    return ltr_pair(*relations, mask, distance=distance, discrepancy=discrepancy).mean()


def layer_relation_triple(
    student: Tensor, teacher: Tensor, mask: Tensor, *, discrepancy: str = "l2"
) -> Tensor:
    """Returns the triple-wise layer transforming relation loss, 0-dim.

    As `word_relation_triple` with all layers of a word in the place of the words in a window.
    """
    _check_hidden(student, teacher, mask)
    relations = (layer_relations(student, mask), layer_relations(teacher.detach(), mask))
    return ltr_triple(*relations, mask, discrepancy=discrepancy).mean()


def soft_label_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    link: str = "softmax",
) -> Tensor:
    """Returns the logit loss, 0-dim.

    Args:
        student_logits: (B, classes).
        teacher_logits: (B, classes); no gradient flows into it.
        temperature: Divides both; the loss is not scaled back by its square.
        link: softmax, for one of several classes: cross-entropy with the teacher's probabilities;
            sigmoid, for classes that may hold together: its mean over their yes or no; identity,
            for numbers: the mean squared difference.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    return soft_labels(student_logits, teacher_logits, temperature=temperature, link=link).mean()


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

    With a window, the paper variant needs the teacher's relations at padded positions too: those of
    `word_relations` have them, a store of real words alone has not.
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


def soft_labels(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    link: str = "softmax",
) -> LossSum:
    """Returns the logit loss, summed over the examples; see `soft_label_loss`."""
    if student_logits.shape != teacher_logits.shape:
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise ValueError(f"logits of student and teacher differ in shape: {shapes}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature {temperature} is not positive and finite")
    student = student_logits / temperature
    teacher = teacher_logits.detach() / temperature
    if link == "identity":
        total = (student - teacher).square().mean(-1).sum()
    elif link == "sigmoid":
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        total = entropy(student, teacher.sigmoid(), reduction="none").mean(-1).sum()
    elif link == "softmax":
        total = -(teacher.softmax(-1) * student.log_softmax(-1)).sum()
    else:
        raise ValueError(f"link {link!r} is none of softmax, sigmoid, identity")
    return LossSum(total, partial(torch.tensor, float(len(student)), dtype=torch.float64))


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
    """Returns what triples (i; j, j) add in the published form, which does not leave them out.

    Their cosine is 1, or 0 if i and j are equal vectors; so they differ only where the student
    has made two vectors equal that differ in the teacher, or the other way round.
    """
    pairs = real[..., :, None] & real[..., None, :]
    one = torch.ones((), dtype=student.dtype, device=student.device)
    each = compare(one, 0 * one, discrepancy)
    return ((student > 0) != (teacher > 0)).logical_and(pairs).sum() * each


def _published_window(
    student: Tensor, teacher: Tensor, mask: Tensor, window: int, discrepancy: str
) -> Tensor:
    """The published windowed triple, for parity and not for speed: (B, L, N, W, W) in memory."""
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


def _check_hidden(student: Tensor, teacher: Tensor, mask: Tensor) -> None:
    if student.ndim != 4 or teacher.ndim != 4:
        raise ValueError(f"hidden states need the shape (B, L, N, H): {_differ(student, teacher)}")
    if student.shape[:3] != teacher.shape[:3]:
        raise ValueError(f"B, L and N must agree: {_differ(student, teacher)}")
    _check_mask(mask, student.shape[0], student.shape[2])


def _check_words(student: WordRelations, teacher: WordRelations, mask: Tensor) -> None:
    _check_relations(student, teacher)
    examples, _, length = student.sq_norm.shape
    _check_mask(mask, examples, length)


def _check_layers(student: LayerRelations, teacher: LayerRelations, mask: Tensor) -> None:
    _check_relations(student, teacher)
    examples, length, _ = student.sq_norm.shape
    _check_mask(mask, examples, length)


def _check_relations(
    student: WordRelations | LayerRelations, teacher: WordRelations | LayerRelations
) -> None:
    # Otherwise a teacher with one layer would be compared with all of the student's.
    for ours, theirs in ((student.sq_dist, teacher.sq_dist), (student.sq_norm, teacher.sq_norm)):
        if ours.shape != theirs.shape:
            raise ValueError(f"relations differ in shape: {_differ(ours, theirs)}")


def _check_mask(mask: Tensor, examples: int, length: int) -> None:
    if mask.shape != (examples, length):
        raise ValueError(f"the mask has shape {tuple(mask.shape)}, (B, N) is {(examples, length)}")


def _check_pair(distance: str, discrepancy: str) -> None:
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; allowed: {', '.join(DISTANCES)}")
    if discrepancy not in DISCREPANCIES:
        raise ValueError(
            f"unknown discrepancy {discrepancy!r}; allowed: {', '.join(DISCREPANCIES)}"
        )
    if discrepancy == "kl" and distance != "cosine":
        raise ValueError("discrepancy 'kl' goes with distance 'cosine' only; use l2, l1, smooth_l1")


def _check_triple(discrepancy: str, window: int | None, variant: str) -> None:
    allowed = [name for name in DISCREPANCIES if name != "kl"]
    if discrepancy not in allowed:
        raise ValueError(f"unknown discrepancy {discrepancy!r}; allowed: {', '.join(allowed)}")
    if window is not None and (window < 3 or window % 2 == 0):
        raise ValueError(f"window {window} is no odd number of at least 3 words")
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; allowed: {', '.join(VARIANTS)}")


def _differ(student: Tensor, teacher: Tensor) -> str:
    return f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
