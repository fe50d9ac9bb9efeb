"""Compares the logits of an exported model with those of the PyTorch model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.export.exported_model import Runnable
from lkd_tune.models.forward import forward

MAX_DIFFERENCE = 1e-3
"""Largest difference of a logit that counts as equal.

Logits are of the order of 1 to 10, and fp32 has 7 digits. Sums in another order differ by far less;
a mask or an axis that tracing has fixed makes far larger differences.
"""
_BATCH_SIZES = (1, 3, 16)
_CPU = torch.device("cpu")


def check_batches(tokens: Tokens) -> list[Batch]:
    """Returns batches of real text, each padded to its longest example.

    They have several sizes and hold the shortest, the middle and the longest examples. One batch
    holds examples from the shortest to the longest and has the most padding.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    chosen = [np.unique(np.linspace(0, len(order) - 1, 8).astype(int))]
    for size in _BATCH_SIZES:
        fits = min(size, len(order))
        for start in (0, (len(order) - fits) // 2, len(order) - fits):
            chosen.append(np.arange(start, start + fits))
    return [cropped(tokens.batch(order[places], _CPU)) for places in chosen]


def cropped(batch: Batch) -> Batch:
    """Returns a batch without the columns that are padding in all its examples."""
    width = int(batch.mask.sum(1).max())
    return replace(
        batch,
        ids=batch.ids[:, :width],
        types=batch.types[:, :width],
        mask=batch.mask[:, :width],
        labels=batch.labels,
    )


def largest_difference(model: Any, exported: Runnable, kind: Kind, batches: list[Batch]) -> float:
    """Returns the largest difference of a logit between two models, without padding.

    Args:
        model: The PyTorch model.
        exported: The exported model.
        kind: The kind of the task, which knows the model's logits.
        batches: The batches that both models are run on.
    """
    largest = []
    with torch.no_grad():
        for batch in batches:
            expected, found = (
                kind.logits(forward(each, batch, hidden_states=False)) for each in (model, exported)
            )
            difference = (expected - found).abs()
            # Logits of tokens have the shape (B, N, C).
            largest.append((difference[batch.mask] if difference.dim() == 3 else difference).max())
    return max(map(float, largest))
