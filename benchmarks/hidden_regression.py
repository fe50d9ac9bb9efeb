"""Distillation by regression of hidden states, as PKD and TinyBERT have it, for comparison."""

from __future__ import annotations

from typing import Any

import torch

from lkd_tune.distill.engine import Distillation
from lkd_tune.distill.models import forward, load_model
from lkd_tune.distill.process_group import device


class HiddenRegression(Distillation):
    """The product's own loop, with one more term beside the logits.

    Over the mapped layers, the mean squared difference of student and teacher in all words (Jiao
    et al., "TinyBERT", 2020, equation 8, without its projection: both are of one width here). For
    one worker and one micro-batch.
    """

    _teacher: Any = None

    def _train_micro_batch(self, batch: Any, maps: Any, counts: torch.Tensor) -> torch.Tensor:
        output = forward(self._engine, batch, hidden_states=True)
        assert self._targets is not None
        sums = self._objective.sums(output, self._targets(batch, maps, relations=False), batch)
        loss = self._objective.weighted(sums, counts) + self._regression(output, batch)
        self._memory.sample()
        self._engine.backward(loss)
        self._engine.step()
        return torch.stack(
            [torch.stack([term.total.detach().double(), term.count.double()]) for term in sums]
        )

    def _regression(self, output: Any, batch: Any) -> torch.Tensor:
        if self._teacher is None:
            assert self.spec.teacher is not None
            self._teacher = load_model(self.spec.teacher).to(device()).eval()
        with torch.no_grad():
            theirs = forward(self._teacher, batch, hidden_states=True).hidden_states
        entries = self.spec.layer_map.word
        assert entries != "random"
        terms = [
            (own - theirs[layer])[batch.mask].square().mean()
            for own, layer in zip(output.hidden_states, entries, strict=True)
        ]
        return torch.stack(terms).sum()
