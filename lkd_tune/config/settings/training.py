"""Settings of a training: its schedule, its batches, and the workers that share them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings


class TrainSettings(Settings):
    """How a model is trained, a student under its objective or a teacher on the labels."""

    epochs: float = Field(3, gt=0)
    """Passes over the training data."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; overrides `epochs`."""
    batch_size: int = Field(32, ge=1)
    """Examples in one optimizer step, over all workers and micro-batches."""
    tokens_per_batch: int | None = Field(None, ge=8)
    """Tokens in one optimizer step, padding counted; overrides `batch_size`: many short examples
    make up a batch, or few long ones."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples that one worker takes at a time; none: all of its share."""
    lr: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; then it falls linearly to 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's, on matrices only."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """AdamW's decay of squared gradients; 0.98 steadies training from scratch."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    evaluations: int = Field(3, ge=1)
    """Scores on dev in a trial: at the end, at half of the steps, at a quarter, and so on."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it, else fp32. A CPU that has units for bf16 (AMX) rounds the
    factors of products to it then, for students of width 128 and more; evaluations are exact."""
    activation_checkpointing: bool = False
    """Makes each layer's activations anew in the backward pass instead of keeping them: the same
    losses in less memory, for about a third more computing."""
    bad_examples: Literal["stop", "skip"] = "stop"
    """One whose loss is not finite, or that raises, is named; skip leaves it out, up to 1%."""


class FineTuning(TrainSettings):
    """How a student is fine-tuned before it is scored."""

    evaluations: Literal[1] = 1
    """It is scored at the end alone."""


class ResourceSettings(Settings):
    """What one trial gets."""

    workers: int = Field(1, ge=1)
    """Processes that train one student together, one GPU each where there are GPUs."""
    cpus: float = Field(1, gt=0)
    """CPU cores per worker."""
    gpus: float = Field(0, ge=0, le=1)
    """GPUs per worker; a share lets trials of one worker share a GPU, each with that share of its
    memory after 1 GiB for each that CUDA and its libraries take."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO: 1 shards optimizer states, 2 gradients too, 3 parameters too."""

    @model_validator(mode="after")
    def _check(self) -> ResourceSettings:
        if self.workers > 1 and self.gpus not in (0, 1):
            raise ValueError(f"{self.workers} workers need a GPU each (gpus: 1), or none (gpus: 0)")
        return self


def trials_on_a_gpu(gpus: float) -> int:
    """Returns how many trials run on one GPU, each with a share of it (or all)."""
    return int(1 / gpus + 1e-9)


def check_batch(train: TrainSettings, resources: ResourceSettings, *, key: str = "train") -> None:
    """Refuses a batch that can't be dealt out evenly.

    Args:
        train: The batch.
        resources: Who it is dealt out to.
        key: Where `train` stands, for the message.

    Raises:
        ValueError: If workers × micro-batches do not divide the batch, or a token budget, whose
            batches are of many sizes, is to be cut into micro-batches of one.
    """
    if train.tokens_per_batch is not None:
        if train.micro_batch_size is not None:
            raise ValueError(f"{key}.micro_batch_size does not go with {key}.tokens_per_batch")
        return
    if train.batch_size % resources.workers:
        raise ValueError(
            f"{key}.batch_size {train.batch_size} can't be shared by {resources.workers} workers "
            "evenly; use a multiple"
        )
    share = train.batch_size // resources.workers
    if train.micro_batch_size is not None and share % min(train.micro_batch_size, share):
        raise ValueError(
            f"a worker's share of {share} examples is no multiple of {key}.micro_batch_size "
            f"{train.micro_batch_size}"
        )
