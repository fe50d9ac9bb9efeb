"""Frees what DeepSpeed had, for the trials that follow in the same process.

An engine, its model and its optimizer refer to each other. Python frees such objects when it next
looks for them all, which takes long and is seldom done; until then a GPU would hold the students of
several trials.
"""

from __future__ import annotations

import gc
import inspect
from typing import Any

import torch

from lkd_tune.runtime.process_group import load_deepspeed


def free_tensors(engine: Any) -> None:
    """Frees weights, gradients and moments of an engine without ZeRO, and leaves the objects.

    ZeRO has them in buffers of its own, which `collect` frees.
    """
    trained = [
        parameter for group in engine.optimizer.param_groups for parameter in group["params"]
    ]
    for parameter in [*engine.module.parameters(), *trained]:
        parameter.grad = None
        parameter.data = parameter.new_empty(0)
    engine.optimizer.state.clear()
    _empty_cache()


def forget_modules(model: Any) -> None:
    """Takes a model out of where ZeRO-3 keeps all that it has seen, so that it can be freed."""
    zero = load_deepspeed().runtime.zero
    own = {id(module) for module in model.modules()}
    stack = zero.parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if id(module) not in own]
    # One of its methods, behind a decorator, has a cache by object and module.
    coordinator = zero.partitioned_param_coordinator.PartitionedParameterCoordinator
    for method in filter(inspect.isfunction, vars(coordinator).values()):
        for inner in inspect.getclosurevars(method).nonlocals.values():
            if hasattr(inner, "cache_clear"):
                inner.cache_clear()


def collect() -> None:
    """Frees all objects that only such objects refer to; takes about a third of a second."""
    gc.collect()
    _empty_cache()


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
