"""Settings of a training: its schedule, its batches, and the workers that share them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lkd_tune.config.settings.base import Settings


class TrainSettings(Settings):
    """How a model is trained: a student with the losses, or a teacher on the labels."""

    epochs: float = Field(3, gt=0)
    """Passes over the training data, unlabelled text and augmented copies included."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps; overrides `epochs`. Default: computed from `epochs`."""
    batch_size: int = Field(32, ge=1)
    """Examples in one optimizer step, over all workers and micro-batches."""
    tokens_per_batch: int | None = Field(None, ge=8)
    """Tokens in one optimizer step, padding included; overrides `batch_size`, so that a batch has
    many short examples or few long ones. Default: batches of `batch_size` examples."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Examples that a worker processes at a time. Default: its whole share of the batch."""
    lr: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly; then it falls linearly to 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW, applied to matrices only."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """Decay of AdamW's squared gradients; 0.98 makes training from scratch more stable."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients with a larger norm are scaled down to it."""
    unlabelled_share: float = Field(1.0, ge=0, le=1)
    """Share of `task.unlabelled` that a student is trained on; with less, its steps stay the same.
    `{choice: [0, 1]}` shows what the text adds. No effect without it."""
    evaluations: int = Field(3, ge=1)
    """Number of evaluations on dev: at the end, at half of the steps, at a quarter, and so on."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that supports it, else fp32. With auto, a CPU with bf16 units (AMX)
    rounds the factors of matrix products to bf16 for students of width 128 and more; evaluations
    use fp32."""
    activation_checkpointing: bool = False
    """Recompute each layer's activations in the backward pass instead of storing them: the same
    losses with less memory, for about a third more computation."""
    bad_examples: Literal["stop", "skip"] = "stop"
    """What to do with an example whose loss is not finite or that raises an error: stop the trial
    and report it, or skip it, up to 1% of the examples."""


class FineTuning(TrainSettings):
    """How a student is fine-tuned before it is scored."""

    evaluations: Literal[1] = 1
    """A fine-tuned student is evaluated at the end only."""


class ResourceSettings(Settings):
    """Resources of one trial."""

    workers: int = Field(1, ge=1)
    """Processes that train one student together; with GPUs, each has one."""
    cpus: float = Field(1, gt=0)
    """CPU cores per worker."""
    gpus: float = Field(0, ge=0, le=1)
    """GPUs per worker. With a fraction, trials of one worker share a GPU. Each trial may use that
    fraction of the GPU's memory, after 1 GiB for each trial that CUDA and its libraries take."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: 1 shards optimizer states, 2 also gradients, 3 also parameters."""

    @model_validator(mode="after")
    def _check(self) -> ResourceSettings:
        if self.workers > 1 and self.gpus not in (0, 1):
            raise ValueError(
                f"{self.workers} workers need one GPU each (gpus: 1) or none (gpus: 0)"
            )
        return self


def trials_on_a_gpu(gpus: float) -> int:
    """Returns the number of trials that run on one GPU, each with the fraction `gpus` of it."""
    return int(1 / gpus + 1e-9)


def check_batch(train: TrainSettings, resources: ResourceSettings, *, key: str = "train") -> None:
    """Checks that a batch can be split evenly over workers and micro-batches.

    Args:
        train: The settings with the batch.
        resources: The settings with the number of workers.
        key: The key of `train`, for the message.

    Raises:
        ValueError: If workers × micro-batches do not divide the batch, or if a token budget, whose
            batches have varying sizes, is combined with a fixed micro-batch size.
    """
    if train.tokens_per_batch is not None:
        if train.micro_batch_size is not None:
            raise ValueError(
                f"{key}.micro_batch_size can't be combined with {key}.tokens_per_batch; remove one"
            )
        return
    if train.batch_size % resources.workers:
        raise ValueError(
            f"{key}.batch_size {train.batch_size} can't be split evenly over {resources.workers} "
            f"workers; use a multiple of {resources.workers}"
        )
    share = train.batch_size // resources.workers
    if train.micro_batch_size is not None and share % min(train.micro_batch_size, share):
        raise ValueError(
            f"a worker's share of {share} examples is not a multiple of {key}.micro_batch_size "
            f"{train.micro_batch_size}"
        )
