"""Whether a batch can be dealt out to workers and micro-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lkd_tune.config.settings.blocks import ResourceSettings, TrainSettings


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
