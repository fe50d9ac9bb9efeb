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
from lkd_tune.losses.base import LossSum, check_name
from lkd_tune.losses.inputs import BatchSizes, LossInputs

LINKS = ("softmax", "sigmoid", "identity")
DIVERGENCES = ("kl", "reverse_kl", "js", "mse")


def soft_label_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    link: str = "softmax",
    divergence: str = "kl",
    scaled: bool = False,
) -> Tensor:
    """Returns the logit loss, 0-dim.

    Args:
        student_logits: (B, classes).
        teacher_logits: (B, classes); no gradient flows into it.
        temperature: Divides both.
        link: 'softmax', for exclusive classes. 'sigmoid', for independent classes: the mean of
            their divergences. 'identity', for numbers: the mean squared difference.
        divergence: Of the student's probabilities p from the teacher's q. 'kl': cross-entropy,
            KL(q || p) up to a constant; 'reverse_kl': KL(p || q); 'js': Jensen-Shannon, the mean
            of KL(q || m) and KL(p || m) with m = (p + q) / 2. 'mse': mean squared difference of
            the logits, without temperature. Without effect with the link 'identity'.
        scaled: Whether to multiply the divergence of probabilities by temperature².

    Raises:
        ValueError: If the shapes differ, the temperature is not positive, or a name is unknown.

    Sources: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015 ('kl' and
    the factor temperature²); Ba, Caruana, "Do Deep Nets Really Need to be Deep?", 2014 ('mse').
    """
    return soft_labels(
        student_logits,
        teacher_logits,
        temperature=temperature,
        link=link,
        divergence=divergence,
        scaled=scaled,
    ).mean()


def soft_labels(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    link: str = "softmax",
    divergence: str = "kl",
    scaled: bool = False,
) -> LossSum:
    """Returns the logit loss, summed over the examples; see `soft_label_loss`."""
    if student_logits.shape != teacher_logits.shape:
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise ValueError(f"logits of student and teacher differ in shape: {shapes}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature {temperature} is not positive and finite")
    check_name("link", link, LINKS)
    check_name("divergence", divergence, DIVERGENCES)
    if divergence == "mse" and link != "identity":
        temperature, scaled = 1.0, False
    student = student_logits / temperature
    teacher = teacher_logits.detach() / temperature
    if link == "identity" or divergence == "mse":
        total = (student - teacher).square().mean(-1).sum()
    elif divergence == "kl" and link == "softmax":
        total = -(teacher.softmax(-1) * student.log_softmax(-1)).sum()
    elif divergence == "kl":
        entropy = F.binary_cross_entropy_with_logits
        total = entropy(student, teacher.sigmoid(), reduction="none").mean(-1).sum()
    else:
        log_p, log_q = _log_probabilities(student, link), _log_probabilities(teacher, link)
        each = _reverse_kl(log_p, log_q) if divergence == "reverse_kl" else _js(log_p, log_q)
        total = (each if link == "softmax" else each.mean(-1)).sum()
    if scaled and link != "identity":
        total = total * temperature**2
    return LossSum(total, partial(torch.tensor, float(len(student)), dtype=torch.float64))


def _log_probabilities(logits: Tensor, link: str) -> Tensor:
    """Returns the log probability of each class, (B, C), or of yes and no for each, (B, C, 2)."""
    if link == "softmax":
        return logits.log_softmax(-1)
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)


def _reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _js(log_p: Tensor, log_q: Tensor) -> Tensor:
    # Not the log of the mean: it would be minus infinity where both probabilities are 0.
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (_reverse_kl(log_p, log_m) + _reverse_kl(log_q, log_m))


def soft_total(settings: LogitLoss, inputs: LossInputs) -> LossSum:
    """Returns the loss against the teacher's logits, summed over the rows of a micro-batch."""
    teacher = inputs.logits[1]
    assert teacher is not None
    kind = inputs.kind
    return kind.soft_label_loss(inputs.rows, kind.loss_rows(teacher, inputs.batch), settings)


def hard_total(settings: LogitLoss, inputs: LossInputs) -> LossSum:
    """Returns the loss against the labels, summed over the rows that have one."""
    kind, batch = inputs.kind, inputs.batch
    total = kind.hard_label_loss(inputs.rows, kind.loss_labels(batch))
    return LossSum(total, lambda: torch.tensor(float(kind.count_labelled_rows(batch))))


def soft_count(settings: LogitLoss, sizes: BatchSizes) -> Tensor:
    """Returns R."""
    return torch.tensor(float(sizes.rows), dtype=torch.float64, device=sizes.mask.device)


def hard_count(settings: LogitLoss, sizes: BatchSizes) -> Tensor:
    """Returns the number of rows that have a label."""
    return torch.tensor(float(sizes.labelled_rows), dtype=torch.float64, device=sizes.mask.device)
