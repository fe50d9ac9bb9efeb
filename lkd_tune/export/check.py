"""Whether a written model answers as the one that it was made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.export.exported_model import Runnable
from lkd_tune.models.forward import forward

# Logits are of the order of 1 to 10, and fp32 has 7 digits: what sums of another order add up to
# lies far below, a mask or an axis that was frozen far above.
MAX_DIFFERENCE = 1e-3
_SIZES = (1, 3, 16)
_CPU = torch.device("cpu")


def check_batches(tokens: Tokens) -> list[Batch]:
    """Returns batches of real text, as wide as their longest example and no wider.

    They are of several sizes among the shortest, the middle and the longest examples; one goes from
    the shortest to the longest and is padded most.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    chosen = [np.unique(np.linspace(0, len(order) - 1, 8).astype(int))]
    for size in _SIZES:
        fits = min(size, len(order))
        for start in (0, (len(order) - fits) // 2, len(order) - fits):
            chosen.append(np.arange(start, start + fits))
    return [cropped(tokens.batch(order[places], _CPU)) for places in chosen]


def cropped(batch: Batch) -> Batch:
    """Returns a batch without the columns that are padding in all of its examples."""
    width = int(batch.mask.sum(1).max())
    return replace(
        batch,
        ids=batch.ids[:, :width],
        types=batch.types[:, :width],
        mask=batch.mask[:, :width],
        labels=batch.labels,
    )


def largest_difference(model: Any, written: Runnable, kind: Kind, batches: list[Batch]) -> float:
    """Returns the largest difference of a logit between two models, padding left out.

    Args:
        model: The PyTorch model.
        written: What was made from it.
        kind: The kind of the task, which tells what its logits are.
        batches: What both are asked.
    """
    found = []
    with torch.no_grad():
        for batch in batches:
            ours, theirs = (
                kind.logits(forward(each, batch, hidden_states=False)) for each in (model, written)
            )
            difference = (ours - theirs).abs()
            # Of tokens: (B, N, C).
            found.append(difference[batch.mask] if difference.dim() == 3 else difference)
    return max(float(difference.max()) for difference in found)
