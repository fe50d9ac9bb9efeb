"""The weighted sum of the loss terms, kept as sums and counts until the whole batch is known."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Batch
from lkd_tune.distillation.targets.base import Maps
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.inputs import BatchSizes, LossInputs, Targets
from lkd_tune.losses.terms import TERMS


class TrainingObjective:
    """The objective of one trial.

    Args:
        losses: Settings and weights of the terms.
        kind: The kind of the task.
        scales: Factors of the weights by term; those that are left out are 1.

    Attributes:
        shares: The factor of each of `TERMS` in its term; 0 if the term has weight 0.
    """

    def __init__(
        self,
        losses: LossSettings,
        kind: Kind,
        scales: Mapping[str, float] = MappingProxyType({}),
    ):
        self._kind, self._needs_labels = kind, losses.needs_labels
        self._terms = [(term, getattr(losses, term.name)) for term in TERMS]
        self.shares = [
            term.share(settings) if settings.weight > 0 else 0.0 for term, settings in self._terms
        ]
        self._weights = [
            settings.weight * scales.get(term.name, 1.0) for term, settings in self._terms
        ]

    def sums(self, output: Any, targets: Targets | None, batch: Batch) -> list[LossSum]:
        """Returns the sum of each term over a micro-batch, with its divisor.

        Args:
            output: The student's output, with all that active terms read.
            targets: The teacher's part; None if only the labels count.
            batch: The micro-batch of B examples.

        Returns:
            One sum for each of `TERMS`; (0, 0) for those with share 0.
        """
        logits = self._kind.logits(output)
        inputs = LossInputs(
            logits,
            output.hidden_states,
            targets,
            batch,
            self._kind,
            projected_states=getattr(output, "projected_states", None),
            attention=getattr(output, "attention_vectors", None),
        )
        nothing = LossSum(torch.zeros((), device=batch.ids.device), lambda: torch.zeros(()))
        return [
            term.total(settings, inputs) if share > 0 else nothing
            for (term, settings), share in zip(self._terms, self.shares, strict=True)
        ]

    def counts(self, batches: list[Batch], maps: Maps) -> torch.Tensor:
        """Returns the divisors of the sums over some micro-batches, float64, shape (terms,).

        Those of terms with share 0 are 0: an interval's mean of a term that has ended is the mean
        over the steps before.

        Args:
            batches: The micro-batches, preferably on the host: they are counted where they are.
            maps: The layer maps, for their lengths.
        """
        layers = [*map(len, (maps.word, maps.layer, maps.hidden, maps.attention))]
        counts = []
        nothing = torch.zeros((), dtype=torch.float64, device=batches[0].mask.device)
        for batch in batches:
            kind = self._kind
            rows = kind.count_loss_rows(batch)
            labelled = kind.count_labelled_rows(batch) if self._needs_labels else 0
            sizes = BatchSizes(batch.mask, rows, labelled, *layers)
            counts.append(
                torch.stack(
                    [
                        term.count(settings, sizes) if share > 0 else nothing
                        for (term, settings), share in zip(self._terms, self.shares, strict=True)
                    ]
                )
            )
        return torch.stack(counts).sum(0)

    def weighted(self, sums: list[LossSum], counts: torch.Tensor) -> torch.Tensor:
        """Returns the share of the objective that a micro-batch contributes, 0-dim.

        Args:
            sums: Of the micro-batch.
            counts: Of the whole effective batch, shape (terms,).
        """
        parts = [
            loss.total * (weight * share / max(1.0, count))
            for weight, share, loss, count in zip(
                self._weights, self.shares, sums, counts.tolist(), strict=True
            )
            if share > 0
        ]
        return torch.stack(parts).sum()

    def report(self, seen: torch.Tensor) -> dict[str, float]:
        """Returns the mean of each active term, and `total`, their weighted sum.

        Args:
            seen: Sum and count of each term over some steps, shape (terms, 2).
        """
        means: dict[str, float] = {}
        weighted = 0.0
        for (term, _), weight, share, (total, count) in zip(
            self._terms, self._weights, self.shares, seen.tolist(), strict=True
        ):
            if share > 0:
                mean = share * float(total / max(count, 1.0))
                means[term.name] = means.get(term.name, 0.0) + mean
                weighted += weight * mean
        return {**means, "total": weighted}


def totals(sums: list[LossSum]) -> torch.Tensor:
    """Returns the sum of each term without its gradient, float64, shape (terms,)."""
    return torch.stack([loss.total.detach() for loss in sums]).double()
