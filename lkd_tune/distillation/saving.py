"""The model of an engine as a Hugging Face folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch.distributed as dist

from lkd_tune.models.loading import save_model
from lkd_tune.runtime.deepspeed import load_deepspeed


def save_student(engine: Any, tokenizer: Any, folder: Path, *, sharded: bool) -> None:
    """Writes the model as a complete Hugging Face folder; every rank calls it.

    Args:
        engine: DeepSpeed's.
        tokenizer: Goes with the model.
        folder: Where to.
        sharded: Whether each rank has a part of the weights only, as in ZeRO stage 3.
    """
    student = engine.module
    gathered: Any = contextlib.nullcontext()
    if sharded:
        gathered = load_deepspeed().zero.GatheredParameters(
            list(student.parameters()), modifier_rank=None
        )
    with gathered:
        if dist.get_rank() == 0:
            weights = {name: t.detach().cpu() for name, t in student.state_dict().items()}
            save_model(student, tokenizer, folder, weights)
    dist.barrier()
