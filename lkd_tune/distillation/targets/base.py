"""The teacher's targets for a batch, from the teacher itself."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import torch

from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Batch
from lkd_tune.losses.inputs import Targets
from lkd_tune.losses.relations import full_precision, layer_relations, word_relations
from lkd_tune.models.forward import forward
from lkd_tune.models.placement import running

# Teacher layers (0 the embeddings) for the word relations and for the layer relations.
Maps = tuple[tuple[int, ...], tuple[int, ...]]


class LiveTeacher:
    """Computes targets by running the teacher on each batch.

    Args:
        teacher: On the host; it is changed in place.
        kind: The task's.
        on: Where the teacher computes.
        bf16: Whether to compute in bf16 with weights in fp32, if `inference` sets no precision.
        inference: How the teacher runs.
        collective: As in `running`: all ranks share the teacher, and call equally often.
    """

    def __init__(
        self,
        teacher: Any,
        kind: Kind,
        on: torch.device,
        *,
        bf16: bool = False,
        inference: Inference = PLAIN,
        collective: bool = False,
    ):
        self._kind, self._on, self._inference = kind, on, inference
        self._bf16 = bf16 and inference.precision == "auto"
        self._collective = collective and inference.placement == "sharded"
        run = contextlib.ExitStack()
        self._teacher = run.enter_context(running(teacher, on, inference, collective=collective))
        # The garbage collector may run only after the next teacher is loaded.
        weakref.finalize(self, run.close)

    def unshared(self, teacher: Any) -> LiveTeacher:
        """Returns a live teacher that does not need other ranks.

        Args:
            teacher: A further copy, used if this one is shared with other ranks.
        """
        if not self._collective:
            return self
        return LiveTeacher(
            teacher, self._kind, self._on, bf16=self._bf16, inference=self._inference
        )

    def __call__(self, batch: Batch, maps: Maps, *, relations: bool) -> Targets:
        """Returns the targets of a batch.

        Args:
            batch: Token ids and mask, shape (B, N).
            maps: The layer maps.
            relations: Whether any term needs relations.
        """
        precision: Any = contextlib.nullcontext()
        if self._bf16:
            precision = torch.autocast(self._on.type, torch.bfloat16)
        elif self._inference.precision == "fp32":
            precision = full_precision(self._on.type)
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
