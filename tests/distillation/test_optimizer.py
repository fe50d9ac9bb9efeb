"""The optimizer's own part of a step: clipping, and float32 copies of bfloat16 parameters."""

from __future__ import annotations

import pytest
import torch

from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.distillation.optimizer import ClippingAdamW, build_optimizer

OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.98), "fused": True}


def _parameters(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (3,), (4, 4), (2,)]
    return [torch.nn.Parameter(torch.randn(s, generator=random).to(dtype)) for s in shapes]


def _groups(parameters: list[torch.nn.Parameter]) -> list[dict]:
    return [
        {"params": parameters[::2], "weight_decay": 0.1},
        {"params": parameters[1::2], "weight_decay": 0.0},
    ]


def _give_gradients(parameters: list[torch.nn.Parameter], step: int, without: int) -> None:
    random = torch.Generator().manual_seed(step)
    for i, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=random).bfloat16()
        parameter.grad = None if i == without else gradient.to(parameter.dtype)


@pytest.mark.parametrize("most", [0.5, 1e6])
@pytest.mark.parametrize("without", [-1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_adamw_on_float32_with_clipped_gradients(dtype, without, most):
    ours, theirs = _parameters(dtype), [p.detach().float() for p in _parameters(dtype)]
    theirs = [torch.nn.Parameter(p) for p in theirs]
    optimizer = ClippingAdamW(_groups(ours), max_grad_norm=most, **OPTIONS)
    plain = torch.optim.AdamW(_groups(theirs), **OPTIONS)
    for step in range(5):
        _give_gradients(ours, step, without)
        _give_gradients(theirs, step, without)
        for other in theirs:  # what no loss reaches decays all the same
            other.grad = torch.zeros_like(other) if other.grad is None else other.grad
        torch.nn.utils.clip_grad_norm_(theirs, most)
        optimizer.step()
        plain.step()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(optimizer.masters.get(own, own), other)
        torch.testing.assert_close(own, other.to(dtype))
        assert own.dtype == dtype


def test_steps_below_the_resolution_of_bfloat16_add_up():
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = ClippingAdamW(
        [{"params": [parameter]}], max_grad_norm=1.0, lr=1e-4, weight_decay=0.0
    )
    for _ in range(100):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    # Each step is 1e-4, a fortieth of the spacing of bfloat16 below 1.
    assert parameter.tolist() == pytest.approx([0.99] * 4, abs=0.004)


@pytest.mark.parametrize("sharded", [True, False])
def test_the_schedule_moves_the_rate(sharded):
    model = torch.nn.Linear(3, 2)
    train = TrainSettings(lr=1e-3, warmup=0.2)
    optimizer, schedule = build_optimizer(model, train, 10, sharded=sharded)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert rates[-1] == pytest.approx(1.25e-4)
