"""Distillation by regression of hidden states, as in PKD and TinyBERT, for comparison."""

from __future__ import annotations

from typing import Any

import torch

from lkd_tune.config.settings.losses import TERM_NAMES
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.distillation.batch_losses import BatchLosses
from lkd_tune.distillation.engine import Distillation
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.inputs import LossInputs, Targets
from lkd_tune.losses.logits import logit_total
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import load_model
from lkd_tune.runtime.process_group import device


class HiddenRegression(Distillation):
    """The real training loop, with the regression as the term `wr_pair` beside the logits.

    The term is the mean squared difference of student and teacher in all words, summed over the
    mapped layers (Jiao et al., "TinyBERT", 2020, equation 8, without its projection, as both have
    the same width here). For one worker and one micro-batch.
    """

    def __init__(self, spec: TrialSpec):
        super().__init__(spec)
        self._losses = _RegressedStates(self._losses, spec)


class _RegressedStates:
    """The losses of a trial, with the regression as `wr_pair`."""

    def __init__(self, losses: BatchLosses, spec: TrialSpec):
        assert spec.teacher is not None
        self._losses = losses
        self._teacher = load_model(spec.teacher).to(device()).eval()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._losses, name)

    def sums(self, student: Any, batch: Any, maps: Any) -> list[LossSum]:
        """Returns the sum of each term over a batch, with its divisor."""
        objective = self._losses.objective
        # The loop divides by this count; the term is a mean already.
        count = objective.counts([batch], maps)[TERM_NAMES.index("wr_pair")].float()
        batch = batch.to(device())
        output = forward(student, batch, hidden_states=True)
        with torch.no_grad():
            theirs = forward(self._teacher, batch, hidden_states=True)
        layers = [
            (own - theirs.hidden_states[layer])[batch.mask].square().mean()
            for own, layer in zip(output.hidden_states, maps[0], strict=True)
        ]
        regression = LossSum(torch.stack(layers).sum() * count, lambda: count)
        nothing = LossSum(output.logits.new_zeros(()), lambda: torch.zeros(()))
        targets = Targets(theirs.logits.float(), None, None)
        inputs = LossInputs(output.logits, None, targets, batch, kind_of(self._losses.spec.task))
        logits = logit_total(self._losses.spec.losses.logits, inputs)
        found = {"wr_pair": regression, "logits": logits}
        return [found.get(term, nothing) for term in TERM_NAMES]
