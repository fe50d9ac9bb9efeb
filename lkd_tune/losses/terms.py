"""The table of loss terms: how each is summed over a micro-batch, and what divides it.

A new term takes three places: its settings and a field in `LossSettings`
(`lkd_tune.config.settings.losses`), a file of functions in this folder, and an entry in `TERMS`.
The training loop, metrics, columns and plots follow from these. If the term reads a part of the
models' outputs that no other reads, `lkd_tune.losses.inputs` says where that is added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lkd_tune.config.settings.losses import (
    AttentionLoss,
    HiddenLoss,
    LayerPairLoss,
    LayerTripleLoss,
    LogitLoss,
    TermSettings,
    WordPairLoss,
    WordTripleLoss,
)
from lkd_tune.losses.attention import attention_count, attention_difference
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.ckd import (
    ltr_pair,
    ltr_pair_count,
    ltr_triple,
    ltr_triple_count,
    wr_pair,
    wr_pair_count,
    wr_triple,
    wr_triple_count,
)
from lkd_tune.losses.hidden import hidden_count, hidden_difference
from lkd_tune.losses.inputs import BatchSizes, LossInputs
from lkd_tune.losses.logits import hard_count, hard_total, soft_count, soft_total


@dataclass(frozen=True)
class Term:
    """One term of the objective, or a part of one that has a divisor of its own.

    Attributes:
        name: Its field in `LossSettings`: the key in a space file, the metric `loss/NAME`, the
            columns `loss_NAME` and `weight_NAME`.
        settings: The class of its settings. `settings.needs` names the attributes of `LossInputs`
            that `total` reads.
        total: Returns the sum over a micro-batch, from settings and inputs.
        count: Returns the divisor of that sum, float64, 0-dim, on the device of the mask. It
            reads no model's output, as a training step needs the divisor of the whole effective
            batch before its first backward pass.
        share: Returns the part's factor in the term, from the settings; 0 leaves it out.
    """

    name: str
    settings: type[TermSettings]
    total: Callable[[Any, LossInputs], LossSum]
    count: Callable[[Any, BatchSizes], Tensor]
    share: Callable[[Any], float] = lambda settings: 1.0


def _wr_pair(settings: WordPairLoss, inputs: LossInputs) -> LossSum:
    return wr_pair(
        *inputs.word_relations,
        inputs.mask,
        distance=settings.distance,
        discrepancy=settings.discrepancy,
    )


def _wr_triple(settings: WordTripleLoss, inputs: LossInputs) -> LossSum:
    return wr_triple(
        *inputs.word_relations,
        inputs.mask,
        window=settings.window,
        discrepancy=settings.discrepancy,
        variant=settings.variant,
    )


def _ltr_pair(settings: LayerPairLoss, inputs: LossInputs) -> LossSum:
    return ltr_pair(
        *inputs.layer_relations,
        inputs.mask,
        distance=settings.distance,
        discrepancy=settings.discrepancy,
    )


def _ltr_triple(settings: LayerTripleLoss, inputs: LossInputs) -> LossSum:
    return ltr_triple(*inputs.layer_relations, inputs.mask, discrepancy=settings.discrepancy)


def _hidden(settings: HiddenLoss, inputs: LossInputs) -> LossSum:
    return hidden_difference(
        *inputs.hidden_states,
        inputs.mask,
        discrepancy=settings.discrepancy,
        words=settings.words,
    )


def _attention(settings: AttentionLoss, inputs: LossInputs) -> LossSum:
    return attention_difference(
        *inputs.attention,
        inputs.mask,
        variant=settings.variant,
        discrepancy=settings.discrepancy,
        heads=settings.heads,
    )


def _wr_pair_count(settings: WordPairLoss, sizes: BatchSizes) -> Tensor:
    return wr_pair_count(sizes.mask, sizes.word_layers)


def _wr_triple_count(settings: WordTripleLoss, sizes: BatchSizes) -> Tensor:
    return wr_triple_count(
        sizes.mask, sizes.word_layers, window=settings.window, variant=settings.variant
    )


def _ltr_pair_count(settings: LayerPairLoss, sizes: BatchSizes) -> Tensor:
    return ltr_pair_count(sizes.mask, sizes.layer_layers)


def _ltr_triple_count(settings: LayerTripleLoss, sizes: BatchSizes) -> Tensor:
    return ltr_triple_count(sizes.mask, sizes.layer_layers)


def _hidden_count(settings: HiddenLoss, sizes: BatchSizes) -> Tensor:
    return hidden_count(sizes.mask, sizes.hidden_layers, words=settings.words)


def _attention_count(settings: AttentionLoss, sizes: BatchSizes) -> Tensor:
    return attention_count(sizes.mask, sizes.attention_layers)


TERMS = (
    Term("wr_pair", WordPairLoss, _wr_pair, _wr_pair_count),
    Term("wr_triple", WordTripleLoss, _wr_triple, _wr_triple_count),
    Term("ltr_pair", LayerPairLoss, _ltr_pair, _ltr_pair_count),
    Term("ltr_triple", LayerTripleLoss, _ltr_triple, _ltr_triple_count),
    Term("logits", LogitLoss, soft_total, soft_count, lambda settings: 1 - settings.alpha),
    Term("logits", LogitLoss, hard_total, hard_count, lambda settings: settings.alpha),
    Term("hidden", HiddenLoss, _hidden, _hidden_count),
    Term("attention", AttentionLoss, _attention, _attention_count),
)
"""All terms, in the order of the fields of `LossSettings`; the parts of a term follow each other.

The loss against the labels is a part of its own, because text without labels has none: its mean is
over the rows that have a label, that of the loss against the teacher is over all rows.
"""
