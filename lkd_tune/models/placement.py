"""Running a model that is not trained, also one whose weights have no room on the device.

From the host's memory each module's weights are brought to the device when its turn comes, and
dropped after it. No rank has to wait for another, so one alone can do so at any time.

Shared by the ranks they are fetched from each other, by DeepSpeed's ZeRO-3. Its bookkeeping talks
to all ranks, so these have to do the same.
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
    model: Any, on: torch.device, inference: Inference, *, together: bool = False
) -> Iterator[Any]:
    """Gives a model that is ready to be run, in the precision and the place that are asked for.

    The model is changed in place. Unless all of it is on the device its weights are gone after
    this.

    Args:
        model: On the host.
        on: Where it computes.
        inference: What is asked for.
        together: All ranks of the process group call, and from then on run the model equally
            often. Otherwise this rank runs it by itself: `sharded` is `cpu` then.
    """
    if inference.precision == "bf16":
        model.to(torch.bfloat16)
    model.eval().requires_grad_(False)
    sharded = inference.placement == "sharded" and together
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
    # Pinned, a copy goes on while the host plans what comes next. Tied weights are one parameter.
    resting = {
        parameter: parameter.data.pin_memory() if on.type == "cuda" else parameter.data
        for parameter in model.parameters()
    }
    for parameter in resting:
        parameter.data = parameter.new_empty(0)
    model.to(on)  # what is left: the buffers

    def fetch(module: Any, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = resting[parameter].to(on, non_blocking=True)

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
        "train_micro_batch_size_per_gpu": 1,  # of no meaning here, but asked for
        # The "efficient" one would be put in the place of torch's for the student, too.
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
        # DeepSpeed's hooks keep the modules alive.
        for parameter in model.parameters():
            for held in (parameter, parameter.ds_tensor):
                held.data = held.new_empty(0)
        forget_zero3_modules(model)
