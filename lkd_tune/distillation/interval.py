"""What the training steps between two evaluations add up to."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lkd_tune.losses.terms import TERMS
from lkd_tune.runtime.process_group import all_reduce_sum, device


class StepResult(NamedTuple):
    """What one optimizer step saw.

    Attributes:
        sums: The sum of each term over this rank's examples, shape (terms,). It stays on the
            device: reading it would wait for the device.
        counts: The divisors of these sums over all ranks, shape (terms,), on the host.
        tokens: Number of this rank's tokens.
        positions: The same with padding.
    """

    sums: Tensor
    counts: Tensor
    tokens: int
    positions: int


@dataclass(frozen=True)
class IntervalTotals:
    """The totals of an interval over all ranks.

    Attributes:
        losses: (sum, count) of each term, shape (terms, 2).
        examples: Number of training examples.
        seconds: Training time.
        padding: Share of the positions that were padding.
    """

    losses: Tensor
    examples: int
    seconds: float
    padding: float


class NonFiniteLoss(NamedTuple):
    """The first loss of an interval that is not finite.

    Attributes:
        batch: The examples of its step.
        steps_ago: 1 for the last step.
        term: The term of the objective.
        total: Its sum over the batch.
    """

    batch: np.ndarray
    steps_ago: int
    term: str
    total: float


class Interval:
    """The steps since the last evaluation, on this rank. Time counts from its creation."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._sums = torch.zeros(len(TERMS), dtype=torch.float64, device=device())
        self._counts = torch.zeros(len(TERMS), dtype=torch.float64)
        self._examples = self._tokens = self._positions = 0
        self._unchecked: list[tuple[np.ndarray, Tensor]] = []

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._begin

    def add(self, batch: np.ndarray, step: StepResult) -> None:
        """Adds a step on a batch, the examples of all ranks."""
        self._unchecked.append((batch, step.sums))
        self._sums += step.sums
        self._counts += step.counts
        self._tokens += step.tokens
        self._positions += step.positions
        self._examples += len(batch)

    def find_non_finite(self) -> NonFiniteLoss | None:
        """Returns the first loss since the last call that is not finite, the same on every rank.

        It waits for the device.
        """
        unchecked, self._unchecked = self._unchecked, []
        totals = all_reduce_sum(torch.stack([sums for _, sums in unchecked])).tolist()
        for i, (batch, _) in enumerate(unchecked):
            for term, total in zip(TERMS, totals[i], strict=True):
                if not math.isfinite(total):
                    return NonFiniteLoss(batch, len(unchecked) - i, term.name, total)
        return None

    def totals(self) -> IntervalTotals:
        """Returns the totals over all ranks. Collective."""
        seconds = self.seconds
        sizes = torch.tensor([self._tokens, self._positions], device=device())
        tokens, positions = all_reduce_sum(sizes).tolist()
        losses = torch.stack([all_reduce_sum(self._sums), self._counts.to(device())], dim=1)
        return IntervalTotals(losses, self._examples, seconds, padding=1 - tokens / positions)
