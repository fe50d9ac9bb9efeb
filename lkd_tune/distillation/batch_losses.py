"""From the indices of training examples to the sums of their losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.distillation.objective import TrainingObjective
from lkd_tune.distillation.targets.base import LiveTeacher, Maps
from lkd_tune.losses.base import LossSum
from lkd_tune.models.forward import forward
from lkd_tune.models.vocabulary import Vocabulary
from lkd_tune.runtime.process_group import device


class BatchLosses:
    """The losses of a trial, for any batch of its training examples and any step.

    Args:
        spec: The trial.
        tokens: Its training examples.
        vocabulary: The student's own; None if it has the teacher's.
        targets: Returns the teacher's part; None if only the labels count.
        teacher_layers: Encoder layers of the teacher.

    Attributes:
        spec, tokens, vocabulary: As given.
        objective: The terms and their weights.
    """

    def __init__(
        self,
        spec: TrialSpec,
        tokens: Tokens,
        vocabulary: Vocabulary | None,
        targets: Any,
        teacher_layers: int,
    ):
        self.spec, self.tokens, self.vocabulary = spec, tokens, vocabulary
        self._targets, self._teacher_layers = targets, teacher_layers
        self._kind = kind_of(spec.task)
        self.objective = TrainingObjective(spec.losses, self._kind)

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
        if not spec.losses.needs_relations:
            return (0,), (0,)
        return spec.layer_map.at_step(
            step,
            seed=spec.seed,
            teacher_layers=self._teacher_layers,
            depth=spec.student.depth,
        )

    def read(self, examples: np.ndarray, step: int) -> Batch:
        """Returns examples as student and teacher read them in a step, on the host."""
        batch = self.tokens.batch(examples, torch.device("cpu"))
        return self._kind.prepare_batch(batch, self.tokens, self.spec.seed, step)

    def sums(self, student: Any, batch: Batch, maps: Maps) -> list[LossSum]:
        """Returns the sum of each term over a batch, with its divisor.

        Args:
            student: The model, or the DeepSpeed engine around it.
            batch: As `read` returns it.
            maps: The layer maps.
        """
        batch = batch.to(device())
        relations = self.spec.losses.needs_relations
        ours = self.vocabulary.translate(batch) if self.vocabulary else batch
        output = forward(student, ours, hidden_states=relations)
        targets = self._targets(batch, maps, relations=relations) if self._targets else None
        return self.objective.sums(output, targets, batch)
