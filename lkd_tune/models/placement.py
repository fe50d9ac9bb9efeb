"""Inference with a model, also one whose weights do not fit on the device.

Weights in the host's memory are copied to the device module by module and dropped after use. Ranks
do not wait for each other, so a single rank can run the model at any time.

Weights shared by the ranks are gathered by DeepSpeed's ZeRO-3. That is collective: all ranks have
to run the model at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from lkd_tune.config.settings.teacher import Inference
from lkd_tune.runtime.deepspeed import forget_zero3_modules, load_deepspeed


@contextmanager
def running(
    model: Any, on: torch.device, inference: Inference, *, collective: bool = False
) -> Iterator[Any]:
    """Yields a model that is ready for inference, in the requested precision and placement.

    The model is changed in place. Unless all of it is on the device, its weights are lost when the
    context ends.

    Args:
        model: On the host.
        on: Where it computes.
        inference: The precision and placement.
        collective: Whether all ranks of the process group call this, and run the model equally
            often. Otherwise this rank runs it alone: `sharded` is then `cpu`.
    """
    if inference.precision == "bf16":
        model.to(torch.bfloat16)
    model.eval().requires_grad_(False)
    sharded = inference.placement == "sharded" and collective
    if sharded and dist.get_world_size() > 1:
        place = _shared_by_ranks
    elif sharded or inference.placement == "device":
        place = _on_device
    else:
        place = _on_host
    with place(model, on):
        yield model


@contextmanager
def _on_device(model: Any, on: torch.device) -> Iterator[None]:
    model.to(on)
    yield


@contextmanager
def _on_host(model: Any, on: torch.device) -> Iterator[None]:
    # Copies of pinned memory do not block the host. Tied weights are one parameter.
    on_host = {
        parameter: parameter.data.pin_memory() if on.type == "cuda" else parameter.data
        for parameter in model.parameters()
    }
    for parameter in on_host:
        parameter.data = parameter.new_empty(0)
    model.to(on)  # the buffers

    def fetch(module: Any, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = on_host[parameter].to(on, non_blocking=True)

    def drop(module: Any, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.new_empty(0)

    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_pre_hook(fetch))
        hooks.append(module.register_forward_hook(drop, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _shared_by_ranks(model: Any, on: torch.device) -> Iterator[None]:
    deepspeed = load_deepspeed()
    config = {
        "train_micro_batch_size_per_gpu": 1,  # required, without effect here
        # Otherwise DeepSpeed replaces torch's linear function for the student too.
        "zero_optimization": {"stage": 3, "memory_efficient_linear": False},
    }
    deepspeed.zero.Init(
        module=model, config_dict_or_path=config, dtype=next(model.parameters()).dtype
    )
    model.to(on)
    hooks = deepspeed.runtime.zero.DeepSpeedZeRoOffload(model, timers=None, ds_config=config)
    try:
        yield
    finally:
        hooks.destroy()
        # DeepSpeed's hooks keep references to the modules.
        for parameter in model.parameters():
            for held in (parameter, parameter.ds_tensor):
                held.data = held.new_empty(0)
        forget_zero3_modules(model)
