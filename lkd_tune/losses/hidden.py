"""Hidden states regressed: the student's vectors against the teacher's at matched layers.

Sources: Jiao et al., "TinyBERT", Findings of EMNLP 2020 (`l2`, all words); Sun et al., "Patient
Knowledge Distillation", EMNLP 2019 (squared difference of normalised vectors of the first token,
which is twice `cosine`); Sanh et al., "DistilBERT", 2019 (`cosine`, last layer).

B examples, N positions, M words that are compared (N, or 1), H hidden size of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lkd_tune.losses.base import LossSum, check_mask, check_name
from lkd_tune.losses.relations import as_exact

DISCREPANCIES = ("l2", "cosine")
WORDS = ("all", "first")


def hidden_difference(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    mask: Tensor,
    *,
    discrepancy: str = "l2",
    words: str = "all",
) -> LossSum:
    """Returns the difference of the hidden states, summed over layers and real words.

    Args:
        student: At each matched layer, (B, N, H), already in the teacher's width. Only the first M
            words are read, as of the teacher.
        teacher: At each matched layer, (B, N, H); no gradient flows into it.
        mask: True (or 1) where a word is real, (B, N).
        discrepancy: 'l2': mean squared difference of a vector's elements; 'cosine': 1 minus the
            cosine of the two vectors.
        words: 'all', or 'first': only position 0.

    Raises:
        ValueError: If shapes do not fit or a name is unknown.
    """
    check_name("discrepancy", discrepancy, DISCREPANCIES)
    if len(student) != len(teacher):
        raise ValueError(f"{len(student)} layers of the student, {len(teacher)} of the teacher")
    real = _compared(mask, words)
    total = torch.zeros((), device=mask.device)
    for ours, theirs in zip(student, teacher, strict=True):
        pair = as_exact(_first(ours, words)), as_exact(_first(theirs, words).detach())
        for vectors in pair:
            check_mask(real, *vectors.shape[:2])
        if pair[0].shape != pair[1].shape:
            widths = f"student {pair[0].shape[-1]}, teacher {pair[1].shape[-1]}"
            raise ValueError(f"hidden states differ in width: {widths}")
        total = total + _differences(pair[0], pair[1], discrepancy).where(real, 0.0).sum()
    return LossSum(total, partial(hidden_count, mask, len(student), words=words))


def hidden_count(mask: Tensor, layers: int, *, words: str = "all") -> Tensor:
    """Returns the number of compared vectors, float64: words times layers."""
    return layers * _compared(mask, words).double().sum()


def _compared(mask: Tensor, words: str) -> Tensor:
    """Returns the mask of the compared words, (B, M)."""
    check_name("words", words, WORDS)
    return _first(mask, words).bool()


def _first(values: Tensor, words: str) -> Tensor:
    return values if words == "all" else values[:, :1]


def _differences(student: Tensor, teacher: Tensor, discrepancy: str) -> Tensor:
    """Returns the difference of each vector, (B, M)."""
    if discrepancy == "l2":
        return (student - teacher).square().mean(-1)
    return 1 - F.cosine_similarity(student, teacher, dim=-1)
