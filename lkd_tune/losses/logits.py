"""The logit loss: the student's logits against the teacher's and against the labels.

B examples, R rows that the task's loss compares one by one (examples, or tokens), C classes.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lkd_tune.config.settings.losses import LogitLoss
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.inputs import BatchSizes, LossInputs


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
        temperature: Divides both. The loss is not multiplied by its square.
        link: 'softmax', for exclusive classes: cross-entropy with the teacher's probabilities.
            'sigmoid', for independent classes: the mean of their binary cross-entropies.
            'identity', for numbers: the mean squared difference.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    return soft_labels(student_logits, teacher_logits, temperature=temperature, link=link).mean()


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
        entropy = F.binary_cross_entropy_with_logits
        total = entropy(student, teacher.sigmoid(), reduction="none").mean(-1).sum()
    elif link == "softmax":
        total = -(teacher.softmax(-1) * student.log_softmax(-1)).sum()
    else:
        raise ValueError(f"unknown link {link!r}; allowed: softmax, sigmoid, identity")
    return LossSum(total, partial(torch.tensor, float(len(student)), dtype=torch.float64))


def logit_total(settings: LogitLoss, inputs: LossInputs) -> LossSum:
    """Returns (1 - alpha) × soft + alpha × hard, summed over the rows of a micro-batch."""
    kind, batch = inputs.kind, inputs.batch
    student, teacher = inputs.logits
    rows = kind.loss_rows(student.float(), batch)
    total = rows.new_zeros(())
    if settings.alpha > 0:
        total = total + settings.alpha * kind.hard_label_loss(rows, kind.loss_labels(batch))
    if settings.alpha < 1 and teacher is not None:
        soft = kind.soft_label_loss(rows, kind.loss_rows(teacher, batch), settings.temperature)
        total = total + (1 - settings.alpha) * soft.total
    return LossSum(total, lambda: torch.tensor(float(len(rows))))


def logit_count(settings: LogitLoss, sizes: BatchSizes) -> Tensor:
    """Returns R."""
    return torch.tensor(float(sizes.rows), dtype=torch.float64, device=sizes.mask.device)
