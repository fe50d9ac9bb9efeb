"""AdamW with gradient clipping and fp32 copies, and the schedule of its learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lkd_tune.config.settings.training import TrainSettings


def build_optimizer(
    student: Any, train: TrainSettings, total: int, *, sharded: bool = False
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Returns AdamW and a schedule that is stepped after each of `total` optimizer steps.

    The learning rate rises linearly during warm-up, then falls linearly to 0.

    Args:
        student: The model; on its device and in its precision, unless `sharded`.
        train: The settings.
        total: Optimizer steps of the whole training.
        sharded: Whether DeepSpeed's ZeRO clips gradients and keeps float32 copies of bfloat16
            parameters. Otherwise the optimizer does both.
    """
    warmup = round(train.warmup * total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (total - step) / max(1, total - warmup))

    groups = _parameter_groups(student, train.weight_decay)
    options: dict[str, Any] = {
        "lr": train.lr,
        "betas": (0.9, train.beta2),
        "fused": True,  # also on a CPU: without it a narrow model takes a tenth longer
    }
    optimizer = (
        torch.optim.AdamW(groups, **options)
        if sharded
        else ClippingAdamW(groups, max_grad_norm=train.max_grad_norm, **options)
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class ClippingAdamW(torch.optim.AdamW):
    """AdamW that clips gradients, and trains bfloat16 parameters through float32 copies.

    It needs a few operations for all parameters. DeepSpeed without ZeRO needs several for each
    parameter, and waits for the GPU after each.

    Args:
        groups: Groups of parameters, as torch's AdamW takes them.
        max_grad_norm: The largest norm of all gradients together; larger ones are scaled down.
        options: Further options of torch's AdamW.

    Attributes:
        masters: The float32 copy of each bfloat16 parameter. AdamW updates the copies.
    """

    def __init__(self, groups: list[dict[str, Any]], *, max_grad_norm: float, **options: Any):
        self._max_grad_norm = max_grad_norm
        self._parameters: list[Tensor] = [p for group in groups for p in group["params"]]
        self.masters: dict[Tensor, Tensor] = {
            parameter: parameter.detach().float().requires_grad_()
            for parameter in self._parameters
            if parameter.dtype != torch.float32
        }
        super().__init__(
            [
                {**group, "params": [self.masters.get(p, p) for p in group["params"]]}
                for group in groups
            ],
            **options,
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Takes a step with the parameters' gradients."""
        self._take_gradients()
        trained = [p for group in self.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, self._max_grad_norm)
        loss = super().step(closure)
        if self.masters:
            torch._foreach_copy_([*self.masters], [*self.masters.values()])
        return loss

    def _take_gradients(self) -> None:
        """Copies the parameters' gradients to the float32 copies.

        Parameters that no loss reaches, such as a head where only hidden states count, get zero
        gradients as in DeepSpeed. So they decay, and have moments to save in a checkpoint.
        """
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for full in self.masters.values():
            if full.grad is None:
                full.grad = torch.empty_like(full)
        if self.masters:
            taken: list[Any] = [full.grad for full in self.masters.values()]
            torch._foreach_copy_(taken, [low.grad for low in self.masters])  # type: ignore[misc]


def _parameter_groups(student: Any, weight_decay: float) -> list[dict[str, Any]]:
    # No decay for vectors: biases and the weights of layer norms.
    parameters = [p for p in student.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
