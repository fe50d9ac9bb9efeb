"""What a student is compared with: the teacher's logits and relations for a batch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch

from lkd_tune.distill.models import forward
from lkd_tune.distill.relations import (
    LayerRelations,
    WordRelations,
    layer_relations,
    word_relations,
)
from lkd_tune.distill.tasks.kind import Kind
from lkd_tune.distill.tokens import Batch

Maps = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Targets:
    """The teacher's part of a batch, layers already matched with the student's.

    Attributes:
        logits: float32, shape (B, C), or (B, N, C) if the task's are of tokens.
        word: Word relations at the layers of the word map, None if no term needs relations.
        layer: Layer transforming relations at the layers of the layer map, likewise.
    """

    logits: torch.Tensor
    word: WordRelations | None
    layer: LayerRelations | None


class LiveTeacher:
    """Gives targets by running the teacher on each batch."""

    def __init__(self, teacher: Any, kind: Kind, on: torch.device, *, bf16: bool = False):
        self._kind = kind
        self._teacher = teacher.to(on).eval().requires_grad_(False)
        self._on, self._bf16 = on, bf16

    def __call__(self, batch: Batch, maps: Maps, *, relations: bool) -> Targets:
        """Returns the targets of a batch.

        Args:
            batch: Token ids and mask, shape (B, N).
            maps: Teacher layers (0 the embeddings) for the word and the layer relations.
            relations: Whether any term compares hidden states.
        """
        precision: Any = contextlib.nullcontext()
        if self._bf16:
            precision = torch.autocast(self._on.type, torch.bfloat16)
        with torch.no_grad(), precision:
            output = forward(self._teacher, batch, hidden_states=relations)
        logits = self._kind.logits(output).float()
        if not relations:
            return Targets(logits, None, None)
        word, layer = (
            torch.stack([output.hidden_states[i] for i in entries], dim=1) for entries in maps
        )
        with torch.no_grad():
            return Targets(
                logits,
                word_relations(word, batch.mask),
                layer_relations(layer, batch.mask),
            )
