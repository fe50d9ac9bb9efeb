"""The weighted sum of the five terms, kept as sums and counts until the whole batch is known."""

from __future__ import annotations

from typing import Any

import torch

from lkd_tune.config.settings.losses import LogitLoss, LossSettings
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.tokenize import Batch
from lkd_tune.distillation.targets.base import Maps, Targets
from lkd_tune.losses.ckd import (
    LossSum,
    ltr_pair,
    ltr_pair_count,
    ltr_triple,
    ltr_triple_count,
    wr_pair,
    wr_pair_count,
    wr_triple,
    wr_triple_count,
)
from lkd_tune.losses.relations import layer_relations, word_relations

TERMS = ("wr_pair", "wr_triple", "ltr_pair", "ltr_triple", "logits")


class Objective:
    """The objective of one trial."""

    def __init__(self, losses: LossSettings, kind: Kind):
        self._losses, self._kind = losses, kind
        self._weights = {name: getattr(losses, name).weight for name in TERMS}
        self._active = [name for name in TERMS if self._weights[name] > 0]

    def sums(self, output: Any, targets: Targets | None, batch: Batch) -> list[LossSum]:
        """Returns each term's sum over a micro-batch and what it is to be divided by.

        Args:
            output: The student's output, with hidden states if any relation has a weight.
            targets: The teacher's part; None if only the labels count.
            batch: The micro-batch of B examples.

        Returns:
            One sum for each of `TERMS`; (0, 0) for those with weight 0.
        """
        relations = self._relation_sums(output, targets, batch)
        logits = self._logit_sum(self._kind.logits(output), targets, batch)
        nothing = LossSum(torch.zeros((), device=batch.ids.device), lambda: torch.zeros(()))
        sums = {**relations, "logits": logits}
        return [sums[name] if name in self._active else nothing for name in TERMS]

    def counts(self, batches: list[Batch], maps: Maps) -> torch.Tensor:
        """Returns what the sums over some micro-batches are divided by, float64, shape (terms,).

        Args:
            batches: The micro-batches, best on the host: they are counted where they are.
            maps: The layer maps, for their lengths.
        """
        words, layers, triple = len(maps[0]), len(maps[1]), self._losses.wr_triple
        counts = [
            torch.stack(
                [
                    wr_pair_count(mask, words),
                    wr_triple_count(mask, words, window=triple.window, variant=triple.variant),
                    ltr_pair_count(mask, layers),
                    ltr_triple_count(mask, layers),
                    torch.tensor(float(rows), dtype=torch.float64, device=mask.device),
                ]
            )
            for mask, rows in ((batch.mask, self._kind.count(batch)) for batch in batches)
        ]
        return torch.stack(counts).sum(0)

    def weighted(self, sums: list[LossSum], counts: torch.Tensor) -> torch.Tensor:
        """Returns the part of the objective that a micro-batch makes up.

        Args:
            sums: Of the micro-batch.
            counts: Of the whole effective batch, shape (terms,).
        """
        parts = [
            loss.total * (self._weights[name] / max(1.0, count))
            for name, loss, count in zip(TERMS, sums, counts.tolist(), strict=True)
            if name in self._active
        ]
        return torch.stack(parts).sum()

    def report(self, seen: torch.Tensor) -> dict[str, float]:
        """Returns the mean of each active term and `total`, their weighted sum.

        Args:
            seen: Sum and count of each term, shape (terms, 2).
        """
        means = {
            name: float(total / max(count, 1.0))
            for name, (total, count) in zip(TERMS, seen.tolist(), strict=True)
            if name in self._active
        }
        total = sum(self._weights[name] * mean for name, mean in means.items())
        return {**means, "total": total}

    def _relation_sums(
        self, output: Any, targets: Targets | None, batch: Batch
    ) -> dict[str, LossSum]:
        if targets is None or targets.word is None or targets.layer is None:
            return {}
        hidden = torch.stack(output.hidden_states, dim=1)  # (B, L, N, H)
        losses, mask = self._losses, batch.mask
        sums = {}
        # Built once, used by the pair and the triple.
        if {"wr_pair", "wr_triple"} & set(self._active):
            word = word_relations(hidden, mask)
            if "wr_pair" in self._active:
                pair = losses.wr_pair
                sums["wr_pair"] = wr_pair(
                    word,
                    targets.word,
                    mask,
                    distance=pair.distance,
                    discrepancy=pair.discrepancy,
                )
            if "wr_triple" in self._active:
                triple = losses.wr_triple
                sums["wr_triple"] = wr_triple(
                    word,
                    targets.word,
                    mask,
                    window=triple.window,
                    discrepancy=triple.discrepancy,
                    variant=triple.variant,
                )
        if {"ltr_pair", "ltr_triple"} & set(self._active):
            layer = layer_relations(hidden, mask)
            if "ltr_pair" in self._active:
                pair = losses.ltr_pair
                sums["ltr_pair"] = ltr_pair(
                    layer,
                    targets.layer,
                    mask,
                    distance=pair.distance,
                    discrepancy=pair.discrepancy,
                )
            if "ltr_triple" in self._active:
                sums["ltr_triple"] = ltr_triple(
                    layer, targets.layer, mask, discrepancy=losses.ltr_triple.discrepancy
                )
        return sums

    def _logit_sum(self, logits: torch.Tensor, targets: Targets | None, batch: Batch) -> LossSum:
        """Returns (1 - alpha) × soft + alpha × hard, summed over the rows that are compared."""
        settings: LogitLoss = self._losses.logits
        kind = self._kind
        rows = kind.rows(logits.float(), batch)
        total = rows.new_zeros(())
        if settings.alpha > 0:
            total = total + settings.alpha * kind.hard(rows, kind.goals(batch))
        if settings.alpha < 1 and targets is not None:
            theirs = kind.rows(targets.logits, batch)
            soft = kind.soft(rows, theirs, settings.temperature)
            total = total + (1 - settings.alpha) * soft.total
        return LossSum(total, lambda: torch.tensor(float(len(rows))))


def totals(sums: list[LossSum]) -> torch.Tensor:
    """Returns each term's sum without a gradient, float64, shape (terms,)."""
    return torch.stack([loss.total.detach() for loss in sums]).double()
