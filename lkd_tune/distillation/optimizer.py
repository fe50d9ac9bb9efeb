"""AdamW, with what goes with a step of it, and its learning rate's schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lkd_tune.config.settings.training import TrainSettings


def build_optimizer(
    student: Any, train: TrainSettings, total: int, *, whole: bool = True
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Returns AdamW and a schedule that is stepped after each of `total` optimizer steps.

    The learning rate rises linearly over the warm-up's share of the steps and falls linearly to 0.

    Args:
        student: The model, on its device and in its precision if `whole`.
        train: The settings.
        total: Optimizer steps of the whole training.
        whole: Whether a step is all this optimizer's: it clips the gradients, and of bfloat16
            parameters it keeps float32 copies. Otherwise DeepSpeed's ZeRO does both.
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
        "fused": True,  # on a CPU too: a loop over the parameters costs a narrow model a tenth
    }
    optimizer = (
        WholeAdamW(groups, max_grad_norm=train.max_grad_norm, **options)
        if whole
        else torch.optim.AdamW(groups, **options)
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class WholeAdamW(torch.optim.AdamW):
    """AdamW that clips gradients first, and trains bfloat16 parameters by float32 copies.

    In a few operations on all parameters together. DeepSpeed without ZeRO does the same for each
    parameter by itself, and waits for the GPU after each.

    Args:
        groups: Groups of parameters, as torch's AdamW takes them.
        max_grad_norm: Gradients are scaled down to this norm, that of all of them together.
        options: Further ones of torch's AdamW.

    Attributes:
        masters: Of each bfloat16 parameter its float32 copy, which is what AdamW knows.
    """

    def __init__(self, groups: list[dict[str, Any]], *, max_grad_norm: float, **options: Any):
        self._max_grad_norm = max_grad_norm
        self._given: list[Tensor] = [p for group in groups for p in group["params"]]
        self.masters: dict[Tensor, Tensor] = {
            parameter: parameter.detach().float().requires_grad_()
            for parameter in self._given
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
        """Gives the float32 copies the gradients of their parameters.

        What no loss reaches, as a head where only hidden states count, has gradients of zero, as
        in DeepSpeed: it decays, and it has moments that a checkpoint can hold.
        """
        for parameter in self._given:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for full in self.masters.values():
            if full.grad is None:
                full.grad = torch.empty_like(full)
        if self.masters:
            taken: list[Any] = [full.grad for full in self.masters.values()]
            torch._foreach_copy_(taken, [low.grad for low in self.masters])  # type: ignore[misc]


def _parameter_groups(student: Any, weight_decay: float) -> list[dict[str, Any]]:
    # Biases and the weights of layer norms are vectors; decay would only shift them.
    parameters = [p for p in student.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
