"""The teacher's targets for a batch, from the teacher itself."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Batch
from lkd_tune.losses.inputs import Targets
from lkd_tune.losses.relations import full_precision, layer_relations, word_relations
from lkd_tune.models.comparable import AttentionHooks
from lkd_tune.models.forward import forward
from lkd_tune.models.placement import running


class Maps(NamedTuple):
    """The teacher's layers (0 the embeddings) that a step compares; none for a part not compared.

    Attributes:
        word: Of the word relations, one for each layer of the student.
        layer: Of the layer relations, likewise.
        hidden: Of the hidden states, for as many of the student's last layers.
        attention: Of queries, keys and values, likewise; never 0.
        first_word: Whether hidden states are compared at the first word only.
    """

    word: tuple[int, ...] = ()
    layer: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    first_word: bool = False

    @property
    def need_hidden_states(self) -> bool:
        """Whether anything is compared that is made of hidden states."""
        return bool(self.word or self.layer or self.hidden)


def compared_layers(losses: LossSettings, word: tuple[int, ...], layer: tuple[int, ...]) -> Maps:
    """Returns what the active terms compare, from the maps of all of the student's layers."""
    needs = losses.needs
    hidden, attention = losses.hidden, losses.attention
    return Maps(
        word=word if "word_relations" in needs else (),
        layer=layer if "layer_relations" in needs else (),
        hidden=_of(hidden.layers, word) if "hidden_states" in needs else (),
        attention=_of(attention.layers, word[1:]) if "attention" in needs else (),
        first_word="hidden_states" in needs and hidden.words == "first",
    )


def _of(layers: str, entries: tuple[int, ...]) -> tuple[int, ...]:
    return entries if layers == "all" else entries[-1:]


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
        self._attention = AttentionHooks(teacher)
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

    def __call__(self, batch: Batch, maps: Maps) -> Targets:
        """Returns the targets of a batch.

        Args:
            batch: Token ids and mask, shape (B, N).
            maps: The layers that are compared. Of others nothing is kept.
        """
        precision: Any = contextlib.nullcontext()
        if self._bf16:
            precision = torch.autocast(self._on.type, torch.bfloat16)
        elif self._inference.precision == "fp32":
            precision = full_precision(self._on.type)
        with torch.no_grad(), precision, self._attention.watching(maps.attention):
            output = forward(self._teacher, batch, hidden_states=maps.need_hidden_states)
        states, real = output.hidden_states, batch.mask
        with torch.no_grad():
            return Targets(
                self._kind.logits(output).float(),
                word_relations(_stacked(states, maps.word), real) if maps.word else None,
                layer_relations(_stacked(states, maps.layer), real) if maps.layer else None,
                tuple(states[i][:, :1] if maps.first_word else states[i] for i in maps.hidden)
                or None,
                self._attention.take(maps.attention) if maps.attention else None,
            )


def _stacked(states: Sequence[torch.Tensor], entries: Sequence[int]) -> torch.Tensor:
    """Returns the hidden states of some layers, (B, L, N, H)."""
    return torch.stack([states[i] for i in entries], dim=1)
