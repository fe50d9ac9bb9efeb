"""What an engine leaves on disk: checkpoints, and students as Hugging Face folders.

Every rank calls each of these.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lkd_tune.distill.models import save_model
from lkd_tune.distill.process_group import load_deepspeed


def save_checkpoint(engine: Any, folder: Path, progress: dict[str, Any]) -> None:
    """Writes weights, optimizer, random numbers and `progress`, plain data; each rank its own."""
    engine.save_checkpoint(str(folder), tag="state")
    state = {
        **progress,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    torch.save(state, folder / f"rank_{dist.get_rank()}.pt")
    dist.barrier()


def load_checkpoint(engine: Any, folder: Path) -> dict[str, Any]:
    """Sets an engine and the random numbers to what they were; returns `progress`.

    Raises:
        FileNotFoundError: If the checkpoint is not there or not whole.
    """
    path, _ = engine.load_checkpoint(str(folder), tag="state")
    if path is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint")
    state = torch.load(folder / f"rank_{dist.get_rank()}.pt", weights_only=True)
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] is not None:
        torch.cuda.set_rng_state(state["cuda_rng"])
    return state


def save_student(engine: Any, tokenizer: Any, folder: Path, *, sharded: bool) -> None:
    """Writes the model as a complete Hugging Face folder.

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
