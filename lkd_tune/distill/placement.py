"""Running a model that is not trained, also one whose weights have no room on the device.

Then DeepSpeed's ZeRO-3 brings each layer's weights to the device when its turn comes, the next
ones' meanwhile, and drops them after it: from the host's memory, or from the other ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from lkd_tune.distill.process_group import ensure_process_group, load_deepspeed
from lkd_tune.spec.inference import Inference


@contextmanager
def running(
    model: Any, on: torch.device, inference: Inference, *, together: bool = False
) -> Iterator[Any]:
    """Gives a model that is ready to be run, in the precision and the place that are asked for.

    The model is changed in place. Unless its placement is `device` its weights are gone after this.

    Args:
        model: On the host.
        on: Where it computes.
        inference: What is asked for.
        together: All ranks of the process group call, each holds a share of the weights, and from
            then on all run the model equally often. Otherwise this rank runs it by itself.
    """
    if inference.precision == "bf16":
        model.to(torch.bfloat16)
    model.eval().requires_grad_(False)
    if inference.placement == "device":
        yield model.to(on)
        return
    ensure_process_group()
    group = None
    if not together and dist.get_world_size() > 1:
        # The others need not know of it.
        group = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    on_host = inference.placement == "cpu" or not together
    hooks = _partition(model, on, group, on_host=on_host)
    try:
        yield model
    finally:
        hooks.destroy()
        _forget(model)
        if group is not None:
            dist.destroy_process_group(group)


def _partition(model: Any, on: torch.device, group: Any, *, on_host: bool) -> Any:
    """Has ZeRO-3 hold a model's weights and fetch them for each forward pass; returns its hooks."""
    deepspeed = load_deepspeed()
    config = {
        "train_micro_batch_size_per_gpu": 1,  # of no meaning here, but asked for
        # The "efficient" one would be put in the place of torch's for the student, too.
        "zero_optimization": {"stage": 3, "memory_efficient_linear": False},
    }
    deepspeed.zero.Init(
        module=model,
        data_parallel_group=group,
        config_dict_or_path=config,
        dtype=next(model.parameters()).dtype,
        remote_device="cpu" if on_host else None,
        pin_memory=on_host and on.type == "cuda",  # else nothing is copied while it computes
    )
    model.to(on)  # buffers; of its parameters nothing is left there
    return deepspeed.runtime.zero.DeepSpeedZeRoOffload(model, timers=None, ds_config=config)


def _forget(model: Any) -> None:
    """Frees the weights: DeepSpeed's hooks and lists keep the modules alive."""
    for parameter in model.parameters():
        for held in (parameter, parameter.ds_tensor):
            held.data = held.new_empty(0)
    own = {id(module) for module in model.modules()}
    stack = load_deepspeed().runtime.zero.parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if id(module) not in own]
