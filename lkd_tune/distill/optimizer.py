"""AdamW and its learning rate's schedule."""

from __future__ import annotations

from typing import Any

import torch

from lkd_tune.spec.settings import TrainSettings


def build_optimizer(
    student: Any, train: TrainSettings, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Returns AdamW and a schedule that is stepped after each of `total` optimizer steps.

    The learning rate rises linearly over the warm-up's share of the steps and falls linearly to 0.
    """
    warmup = round(train.warmup * total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (total - step) / max(1, total - warmup))

    optimizer = torch.optim.AdamW(
        _parameter_groups(student, train.weight_decay),
        lr=train.lr,
        betas=(0.9, train.beta2),
        fused=True,  # on a CPU too: a loop over the parameters costs a narrow model a tenth
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _parameter_groups(student: Any, weight_decay: float) -> list[dict[str, Any]]:
    # Biases and the weights of layer norms are vectors; decay would only shift them.
    parameters = [p for p in student.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
