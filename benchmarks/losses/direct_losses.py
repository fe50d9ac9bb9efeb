"""The loss terms written directly from their formulas: the baseline of the fast form.

Every difference of two words is materialised, (B·L, N, W, H) for the windowed triple, as in a first
implementation. The values equal those of `lkd_tune.losses.ckd` with its defaults.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def direct_objective(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    window: int,
) -> Tensor:
    """Returns the sum of the terms; hidden states (B, L, N, H), mask (B, N)."""
    terms = direct_terms(student, teacher, mask, student_logits, teacher_logits, window)
    return torch.stack(list(terms.values())).sum()


def direct_terms(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    window: int,
) -> dict[str, Tensor]:
    """Returns the terms by name, each 0-dim."""
    soft = (teacher_logits.softmax(-1) * student_logits.log_softmax(-1)).sum(-1)
    return {
        "wr_pair": _word_pair(student, teacher, mask),
        "wr_triple": _word_triple(student, teacher, mask, window),
        "ltr_pair": _layer_pair(student, teacher, mask),
        "ltr_triple": _layer_triple(student, teacher, mask),
        "logits": -soft.mean(),
    }


def _divergence(student: Tensor, teacher: Tensor, others: Tensor, count: Tensor) -> Tensor:
    ours = student.masked_fill(~others, -1e4).log_softmax(-1)
    theirs = teacher.masked_fill(~others, -1e4).log_softmax(-1)
    return (theirs.exp() * (theirs - ours)).masked_fill(~others, 0).sum() / count


def _similarities(states: Tensor) -> Tensor:
    unit = F.normalize(states, dim=-1)
    return unit @ unit.transpose(-1, -2)


def _word_pair(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    layers, length = student.shape[1], student.shape[2]
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    others = pairs & ~torch.eye(length, dtype=torch.bool, device=mask.device)
    count = layers * pairs.sum()
    return _divergence(_similarities(student), _similarities(teacher), others, count)


def _word_triple(student: Tensor, teacher: Tensor, mask: Tensor, window: int) -> Tensor:
    length, radius = student.shape[2], window // 2
    centre = torch.arange(length, device=mask.device)
    offset = torch.arange(-radius, radius + 1, device=mask.device)
    near = centre[:, None] + offset
    inside = (near >= 0) & (near < length)
    near = near.clamp(0, length - 1)
    exists = mask[:, near] & inside & (offset != 0) & mask[:, :, None]  # (B, N, W)
    valid = exists[..., :, None] & exists[..., None, :]
    valid = valid & ~torch.eye(window, dtype=torch.bool, device=mask.device)

    def cosines(states: Tensor) -> Tensor:
        sides = states[:, :, near] - states[:, :, :, None]  # (B, L, N, W, H)
        sides = F.normalize(sides, dim=-1)
        return sides @ sides.transpose(-1, -2)

    difference = (cosines(student) - cosines(teacher)).square()
    count = student.shape[1] * valid.sum()
    return difference.masked_fill(~valid[:, None], 0).sum() / count


def _layer_pair(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    layers = student.shape[1]
    others = mask[..., None, None] & ~torch.eye(layers, dtype=torch.bool, device=mask.device)
    ours, theirs = (_similarities(states.transpose(1, 2)) for states in (student, teacher))
    return _divergence(ours, theirs, others, mask.sum() * layers**2)


def _layer_triple(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    def cosines(states: Tensor) -> Tensor:
        states = states.transpose(1, 2)  # (B, N, L, H)
        sides = F.normalize(states[..., None, :, :] - states[..., :, None, :], dim=-1)
        return sides @ sides.transpose(-1, -2)

    difference = (cosines(student) - cosines(teacher)).square()
    count = mask.sum() * student.shape[1] ** 3
    return difference.masked_fill(~mask[..., None, None, None], 0).sum() / count
