"""Checkpoints of a training that any number of workers can resume from.

DeepSpeed's own checkpoints are pickled shards, one per worker, and its converter to "universal"
ones unpickles them. Here the parameters and their moments are gathered one by one, and rank 0
writes them in float32 under the parameters' names, as safetensors. So reading a checkpoint can't
run code, and it does not depend on the number of workers or the ZeRO stage. Rank 0 needs 12 bytes
of host memory per parameter of the student.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file

from lkd_tune.runtime.deepspeed import load_deepspeed

_PROGRESS = "progress.json"
_STATE = "state.safetensors"
_RANDOM = "random_{rank}.safetensors"
_VALUE = "parameter"
# What AdamW keeps for each parameter, by torch's names.
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(engine: Any, folder: Path, progress: dict[str, Any]) -> None:
    """Writes the state of a training. Collective; called after an optimizer step.

    Args:
        engine: DeepSpeed's, with torch's AdamW, at any ZeRO stage.
        folder: Where to write; all ranks see it.
        progress: What `load_checkpoint` will return, for JSON; with the optimizer's `step`.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    folder.mkdir(parents=True, exist_ok=True)
    _save_engine(engine, folder / _STATE)
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    save_file(random, folder / _RANDOM.format(rank=rank))
    if rank == 0:
        (folder / _PROGRESS).write_text(json.dumps({**progress, "workers": world}), "utf-8")
    dist.barrier()


def load_checkpoint(engine: Any, folder: Path, seed: int) -> dict[str, Any]:
    """Restores the state that `save_checkpoint` wrote, and returns its progress. Collective.

    If the number of workers has changed, each one gets a new random state, so that it repeats
    neither another worker's random numbers nor those of step 0.

    Args:
        engine: A new engine of DeepSpeed around a model with the same parameters.
        folder: The checkpoint.
        seed: The trial's seed, 0 or more.

    Raises:
        FileNotFoundError: If the checkpoint is missing or incomplete.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    progress = json.loads((folder / _PROGRESS).read_text("utf-8"))
    _load_engine(engine, folder / _STATE, progress["step"])
    if progress.pop("workers") != world:
        own = np.random.SeedSequence((seed, progress["step"], world, rank))
        torch.manual_seed(int(own.generate_state(1)[0]))
        return progress
    with safe_open(folder / _RANDOM.format(rank=rank), framework="pt") as random:
        torch.set_rng_state(random.get_tensor("cpu"))
        if torch.cuda.is_available() and "cuda" in random.keys():  # noqa: SIM118 # no mapping
            torch.cuda.set_rng_state(random.get_tensor("cuda"))
    return progress


def _save_engine(engine: Any, path: Path) -> None:
    masters, state = _masters(engine), {}
    _link_moments(engine)
    for name, parameter in _trained(engine):
        for kind in (_VALUE, *_MOMENTS):
            tensor = _gather(engine, masters, parameter, kind)
            if dist.get_rank() == 0:
                state[f"{kind}/{name}"] = tensor.detach().cpu().contiguous()
    if state:
        save_file(state, path)


def _load_engine(engine: Any, path: Path, step: int) -> None:
    masters = _masters(engine)
    _make_moments(engine, step)
    _link_moments(engine)
    with safe_open(path, framework="pt") as state:
        for name, parameter in _trained(engine):
            for kind in (_VALUE, *_MOMENTS):
                value = state.get_tensor(f"{kind}/{name}").to(parameter.device)
                _scatter(engine, masters, parameter, kind, value)
    # Set directly: stepping the schedule would require steps of AdamW in between.
    schedule = engine.lr_scheduler
    factors = [factor(step) for factor in schedule.lr_lambdas]
    rates = [base * factor for base, factor in zip(schedule.base_lrs, factors, strict=True)]
    schedule.last_epoch, schedule._last_lr = step, rates
    for group, rate in zip(engine.basic_optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _trained(engine: Any) -> Iterator[tuple[str, Any]]:
    return ((name, p) for name, p in engine.module.named_parameters() if p.requires_grad)


def _gather(engine: Any, masters: Any, parameter: Any, kind: str) -> torch.Tensor:
    """Returns a complete parameter in float32, or one of its moments, on every rank."""
    if engine.zero_optimization_stage() == 0:
        own = masters.get(parameter, parameter)
        return own if kind == _VALUE else engine.basic_optimizer.state[own][kind]
    utils = load_deepspeed().utils
    if kind == _VALUE:
        return utils.safe_get_full_fp32_param(parameter)
    return utils.safe_get_full_optimizer_state(parameter, kind)


def _scatter(engine: Any, masters: Any, parameter: Any, kind: str, value: torch.Tensor) -> None:
    """Sets this rank's part of a value that `_gather` returned."""
    stage, deepspeed = engine.zero_optimization_stage(), load_deepspeed()
    utils = deepspeed.utils
    if stage == 0:
        own = masters.get(parameter, parameter)
        (own if kind == _VALUE else engine.basic_optimizer.state[own][kind]).data.copy_(value)
    elif stage == 3:
        # DeepSpeed 0.19 can't set a complete value if the ranks' parts have different sizes.
        part = _own_part(parameter, value)
        if kind == _VALUE:
            utils.safe_set_local_fp32_param(parameter, part)
        else:
            utils.safe_set_local_optimizer_state(parameter, part, kind)
    elif kind == _VALUE:
        utils.safe_set_full_fp32_param(parameter, value)
    else:
        utils.safe_set_full_optimizer_state(parameter, value, kind)
    if kind == _VALUE:
        # The model computes with a copy in its own precision.
        with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0, enabled=stage == 3):
            parameter.data.copy_(value)


def _own_part(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """Returns this rank's part of a value in ZeRO 3; all have the same size, the last is padded."""
    size = parameter.ds_tensor.numel()
    padded = value.new_zeros(size * dist.get_world_size())
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * dist.get_rank(), size)


def _masters(engine: Any) -> dict[Any, torch.Tensor]:
    """Returns the float32 copies of bfloat16 parameters; empty with ZeRO."""
    return {} if engine.zero_optimization_stage() > 0 else engine.basic_optimizer.masters


def _make_moments(engine: Any, step: int) -> None:
    """Gives AdamW the state that its first step would create, with moments of zero."""
    stage, adamw = engine.zero_optimization_stage(), engine.basic_optimizer
    if stage == 3:  # DeepSpeed passes these to AdamW only during a step
        held = engine.optimizer.fp32_partitioned_groups_flat
    else:
        held = [tensor for group in adamw.param_groups for tensor in group["params"]]
    for tensor in held:
        adamw.state[tensor] = {
            "step": torch.tensor(float(step), device=tensor.device),
            **{moment: torch.zeros_like(tensor) for moment in _MOMENTS},
        }


def _link_moments(engine: Any) -> None:
    """Makes ZeRO 1 and 2 look up again which part of the moments belongs to which parameter.

    DeepSpeed 0.19 looks this up once, in the first step, when only the first parameter group has
    moments.
    """
    if engine.zero_optimization_stage() in (1, 2):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
