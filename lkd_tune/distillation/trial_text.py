"""The training split of a trial, in the tokens of the student and of the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.trial import TrialSpec, tokenizer_problem
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.augmentation import load_training_tokens
from lkd_tune.models.loading import has_vocabulary_of, load_tokenizer


@dataclass(frozen=True)
class TrialText:
    """The training split of a trial.

    Attributes:
        tokenizer: The student's, before it is trimmed.
        tokens: The split in the student's tokens.
        teacher_tokens: The same rows in the teacher's tokens; the same object as `tokens` if both
            have the same tokenizer.
    """

    tokenizer: Any
    tokens: Tokens
    teacher_tokens: Tokens


def load_trial_text(spec: TrialSpec, on: torch.device, cache: Path | None) -> TrialText:
    """Returns the training split of a trial.

    Args:
        spec: The trial.
        on: Where words are predicted for augmented text.
        cache: Folder for tokens. Default: the user's cache.

    Raises:
        SpecError: If the data or a tokenizer can't be loaded, or if the trial compares words of
            student and teacher, whose tokens differ.
    """
    task, teacher, init = spec.task, spec.teacher, spec.student.init
    tokenizer = load_tokenizer(teacher or init)
    tokens = load_training_tokens(task, teacher, tokenizer, on, cache=cache)
    if teacher is None or not spec.student.starts_from_model:
        return TrialText(tokenizer, tokens, tokens)
    if has_vocabulary_of(init, teacher, "student.init"):
        return TrialText(tokenizer, tokens, tokens)
    if problem := tokenizer_problem(init, task, spec.losses):
        raise SpecError(Problem("", "student.init", problem))
    own = load_tokenizer(init)
    return TrialText(own, load_training_tokens(task, teacher, own, on, cache=cache), tokens)
