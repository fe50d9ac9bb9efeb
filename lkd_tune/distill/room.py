"""Whether a model's weights have room where they are to lie, told before they are loaded."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from lkd_tune.distill.models import describe_model
from lkd_tune.distill.process_group import device
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.inference import Inference


def weight_bytes(parameters: int, inference: Inference) -> int:
    """Returns the size of a model's weights as it is run."""
    return parameters * (2 if inference.precision == "bf16" else 4)


def host_memory(
    own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Returns the bytes of memory that this process may have.

    The machine's, or less: a container or a batch job that takes more is killed.

    Args:
        own: Which control groups it is in, as Linux tells it.
        groups: Where those lie.
    """
    limits = [psutil.virtual_memory().total]
    for line in own.read_text("utf-8").splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Within a container the path may be the one outside; its own group is the root then.
        group = root / path.lstrip("/")
        for place in (group, *group.parents):
            if place.is_relative_to(root) and (place / name).exists():
                limit = (place / name).read_text("utf-8").strip()
                limits += [int(limit)] if limit.isdigit() else []  # or it is `max`
    return min(limits)


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
        room, where = host_memory(), "host"
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
