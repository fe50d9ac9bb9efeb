"""What the loss terms read: a pair (student, teacher) for each part of the models' outputs.

A new part is a field of `Targets`, a property of `LossInputs`, and a name in `Part`, beside the
settings of the terms.

B examples, N positions, L matched layers, H hidden size, C classes, R rows that the task's loss
compares one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from lkd_tune.config.settings.losses import LogitLoss
from lkd_tune.losses import relations
from lkd_tune.losses.attention import AttentionVectors
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.relations import LayerRelations, WordRelations


@dataclass(frozen=True)
class Targets:
    """The teacher's part of a batch, layers already matched with the student's.

    Attributes:
        logits: float32, shape (B, C), or (B, N, C) if the task's are of tokens.
        word_relations: At the layers of the word map, None if no term reads them.
        layer_relations: At the layers of the layer map, likewise.
        hidden_states: At the compared layers of the word map, each (B, N, H), or (B, 1, H) if only
            the first word is compared; likewise.
        attention: At the compared layers of the word map, likewise.
    """

    logits: Tensor
    word_relations: WordRelations | None = None
    layer_relations: LayerRelations | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attention: AttentionVectors | None = None


class TaskKind(Protocol):
    """The part of `lkd_tune.data.tasks.base.Kind` that the logit loss calls."""

    def loss_rows(self, logits: Tensor, batch: Any) -> Tensor:
        """Returns the logits that the loss compares, shape (R, C)."""

    def loss_labels(self, batch: Any) -> Tensor:
        """Returns the labels of the rows, shape (R,) or (R, C)."""

    def count_labelled_rows(self, batch: Any) -> int:
        """Returns the number of rows that have a label."""

    def hard_label_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss against the labels, summed over the rows that have one, 0-dim."""

    def soft_label_loss(self, rows: Tensor, teacher: Tensor, settings: LogitLoss) -> LossSum:
        """Returns the loss against the teacher's rows, summed."""


class LossInputs:
    """What the terms read of a micro-batch.

    A part is computed when the first term reads it, and shared by all terms. So a part that no
    active term reads costs nothing.

    Args:
        logits: The student's, shape (B, C) or (B, N, C).
        hidden_states: The student's at all of its layers, each (B, N, H); None if no active term
            reads them.
        projected_states: Those of its last layers in the teacher's width; None if it has that width
            itself.
        attention: Queries, keys and values of the student's last layers; None if no active term
            reads them.
        targets: The teacher's part; None if only the labels count.
        batch: The micro-batch.
        kind: The kind of the task.

    Attributes:
        logits: The student's and, unless only the labels count, the teacher's.
        mask: True where a word is real, shape (B, N).
        batch, kind: As given.
    """

    def __init__(
        self,
        logits: Tensor,
        hidden_states: Sequence[Tensor] | None,
        targets: Targets | None,
        batch: Any,
        kind: TaskKind,
        *,
        projected_states: Sequence[Tensor] | None = None,
        attention: AttentionVectors | None = None,
    ):
        self._hidden_states, self._targets = hidden_states, targets
        self._projected_states, self._attention = projected_states, attention
        self.logits = (logits, targets.logits if targets else None)
        self.mask: Tensor = batch.mask
        self.batch, self.kind = batch, kind

    @cached_property
    def rows(self) -> Tensor:
        """The student's logits that the task's loss compares, float32, shape (R, C)."""
        return self.kind.loss_rows(self.logits[0].float(), self.batch)

    @cached_property
    def word_relations(self) -> tuple[WordRelations, WordRelations]:
        """The relations between the words of each matched layer."""
        assert self._targets is not None
        assert self._targets.word_relations is not None
        student = relations.word_relations(self._hidden, self.mask)
        return student, self._targets.word_relations

    @cached_property
    def layer_relations(self) -> tuple[LayerRelations, LayerRelations]:
        """The relations between the matched layers of each word."""
        assert self._targets is not None
        assert self._targets.layer_relations is not None
        student = relations.layer_relations(self._hidden, self.mask)
        return student, self._targets.layer_relations

    @cached_property
    def hidden_states(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The hidden states of each compared layer, in the teacher's width."""
        assert self._targets is not None
        assert self._targets.hidden_states is not None
        teacher = self._targets.hidden_states
        student = self._projected_states or self._hidden_states
        assert student is not None
        return tuple(student[-len(teacher) :]), teacher

    @cached_property
    def attention(self) -> tuple[AttentionVectors, AttentionVectors]:
        """The queries, keys and values of each compared layer."""
        assert self._targets is not None
        assert self._targets.attention is not None
        assert self._attention is not None
        return self._attention, self._targets.attention

    @cached_property
    def _hidden(self) -> Tensor:
        """The student's hidden states, (B, L, N, H)."""
        assert self._hidden_states is not None
        return torch.stack(tuple(self._hidden_states), dim=1)


@dataclass(frozen=True)
class BatchSizes:
    """What the counts of the terms depend on: known before any model runs on the batch.

    Attributes:
        mask: True where a word is real, shape (B, N).
        rows: R.
        labelled_rows: Those of the R rows that have a label.
        word_layers: Layers that the word relations compare.
        layer_layers: Layers that the layer relations compare.
        hidden_layers: Layers whose hidden states are compared.
        attention_layers: Layers whose queries, keys and values are compared.
    """

    mask: Tensor
    rows: int
    labelled_rows: int
    word_layers: int
    layer_layers: int
    hidden_layers: int = 0
    attention_layers: int = 0
