"""Whether a model's weights have room where they are to lie, told before they are loaded."""

from __future__ import annotations

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.teacher import Inference
from lkd_tune.models.loading import describe_model
from lkd_tune.runtime.host_memory import host_memory
from lkd_tune.runtime.process_group import device


def weight_bytes(parameters: int, inference: Inference) -> int:
    """Returns the size of a model's weights as it is run."""
    return parameters * (2 if inference.precision == "bf16" else 4)


def check_room(model: str, head: str, inference: Inference) -> None:
    """Refuses a model that one process can't run here.

    The weights alone are looked at; activations are cut to what is left.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….
        inference: How it is run.

    Raises:
        SpecError: If its weights are larger than all of the memory they are to lie in.
    """
    needed = weight_bytes(describe_model(model, head)["parameters"], inference)
    on_gpu = device().type == "cuda" and inference.placement == "device"
    if on_gpu:
        room, where = torch.cuda.mem_get_info()[1], "GPU"
    else:
        room, where = host_memory()[0], "host"
    if needed <= room:
        return
    ways = [] if inference.precision == "bf16" else ["teacher.precision=bf16 halves them"]
    if on_gpu:
        ways.append("teacher.placement=cpu leaves them in the host's memory")
    advice = ", ".join(ways) or "use a machine with more memory"
    message = (
        f"{model} has {needed / 1e9:.1f} GB of weights, the {where} {room / 1e9:.1f} GB of "
        f"memory; {advice}"
    )
    raise SpecError(Problem("", "teacher", message))
