"""From the indices of training examples to the sums of their losses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.distillation.objective import TrainingObjective
from lkd_tune.distillation.targets.base import LiveTeacher, Maps, compared_layers
from lkd_tune.losses.base import LossSum
from lkd_tune.models.comparable import ComparableStudent
from lkd_tune.models.forward import forward
from lkd_tune.models.vocabulary import Vocabulary
from lkd_tune.runtime.process_group import device


class BatchLosses:
    """The losses of a trial, for any batch of its training examples and any step.

    Args:
        spec: The trial.
        tokens: Its training examples in the student's tokens.
        vocabulary: The student's trimmed one; None if it is not trimmed.
        targets: Returns the teacher's part; None if only the labels count.
        teacher_layers: Encoder layers of the teacher.
        total_steps: Optimizer steps of the whole training.
        teacher_tokens: The same in the teacher's, by default `tokens`.

    Attributes:
        spec, tokens, vocabulary: As given.
        settings: The terms and their weights: those of the trial, or after `at` those of a step.
        objective: Computes them.
    """

    def __init__(
        self,
        spec: TrialSpec,
        tokens: Tokens,
        vocabulary: Vocabulary | None,
        targets: Any,
        teacher_layers: int,
        total_steps: int,
        teacher_tokens: Tokens | None = None,
    ):
        self._teacher_tokens = tokens if teacher_tokens is None else teacher_tokens
        self.spec, self.tokens, self.vocabulary = spec, tokens, vocabulary
        self._targets, self._teacher_layers = targets, teacher_layers
        self._total_steps = total_steps
        self._kind = kind_of(spec.task)
        self._use(spec.losses)

    def _use(self, settings: LossSettings) -> None:
        self.settings = settings
        self.objective = TrainingObjective(settings, self._kind, self.spec.effective_scales)

    def at(self, step: int) -> BatchLosses:
        """Returns the losses of a step, counted from 0: without the terms that have ended."""
        settings = self.spec.losses.at_step(step, self._total_steps)
        if settings is self.spec.losses:
            return self
        later = copy.copy(self)  # shares tokens and teacher
        later._use(settings)
        return later

    def use_own_teacher(self, teacher: Any) -> None:
        """Makes this rank independent of other ranks.

        Args:
            teacher: On the host; used if the ranks share the teacher that runs now.
        """
        if isinstance(self._targets, LiveTeacher):
            self._targets = self._targets.unshared(teacher)

    def maps(self, step: int) -> Maps:
        """Returns the layer maps of a step, counted from 0."""
        spec = self.spec
        if not self.settings.needs_layers:
            return Maps()
        word, layer = spec.layer_map.at_step(
            step,
            seed=spec.seed,
            teacher_layers=self._teacher_layers,
            depth=spec.student.depth,
        )
        return compared_layers(self.settings, word, layer)

    def read(self, examples: np.ndarray, step: int) -> Batch:
        """Returns examples as student and teacher read them in a step, on the host."""
        batch = self.tokens.batch(examples, torch.device("cpu"))
        return self._kind.prepare_batch(batch, self.tokens, self.spec.seed, step)

    def _of_teacher(self, batch: Batch) -> Batch:
        """Returns the same examples in the teacher's tokens, on the device."""
        if self._teacher_tokens is self.tokens:
            return batch
        return self._teacher_tokens.batch(batch.examples, device())

    def sums(self, student: Any, batch: Batch, maps: Maps) -> list[LossSum]:
        """Returns the sum of each term over a batch, with its divisor.

        Args:
            student: The model as `make_comparable` returns it, or the DeepSpeed engine around it.
            batch: As `read` returns it.
            maps: The layer maps.
        """
        batch = batch.to(device())
        ours = self.vocabulary.translate(batch) if self.vocabulary else batch
        compared = {}
        if isinstance(getattr(student, "module", student), ComparableStudent):
            compared = {
                "projected_layers": len(maps.hidden),
                "first_word": maps.first_word,
                "attention_layers": len(maps.attention),
            }
        output = forward(student, ours, hidden_states=maps.need_hidden_states, **compared)
        targets = None
        if self._targets and self.settings.needs_teacher:
            targets = self._targets(self._of_teacher(batch), maps)
        return self.objective.sums(output, targets, batch)
