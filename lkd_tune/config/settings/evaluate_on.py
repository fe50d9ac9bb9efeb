"""Settings of the task that scores students of masked_lm."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, field_validator

from lkd_tune.config.settings.base import Settings, block_from
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.settings.training import FineTuning


class EvaluateOn(Settings):
    """A task on which students of masked_lm are fine-tuned to score them.

    The fine-tuning takes place at the end of each trial. `evaluate_on: NAME` selects a known task.
    """

    # Test is left to the search on that task: here it would be scored once for each trial.
    task: Annotated[
        TaskSettings,
        block_from("name"),
        AfterValidator(lambda task: task.model_copy(update={"test": None})),
    ]
    train: FineTuning = FineTuning()

    @field_validator("task")
    @classmethod
    def _check(cls, task: TaskSettings) -> TaskSettings:
        if not KINDS[task.kind].has_labels:
            raise ValueError(f"a task with labels is needed to fine-tune on, not {task.kind}")
        return task


def score_name(task: TaskSettings, evaluate_on: EvaluateOn | None) -> str:
    """Returns what the score of a trial is called.

    One that another task gives has a name that no metric of the trial's own task has, so that
    nothing can take one for the other: the teacher, for one, has no such score.
    """
    scored = evaluate_on.task if evaluate_on else None
    return task.metric if scored is None else f"{scored.name} {scored.metric}"


def check_evaluate_on(task: TaskSettings) -> None:
    """Refuses a task whose students need no other one to be scored on.

    Raises:
        ValueError: If it has labels itself, or a test split, which would score the winner by
            something else than dev did.
    """
    if KINDS[task.kind].has_labels:
        raise ValueError(f"is for task.kind masked_lm; a student of {task.kind} has a score itself")
    if task.test is not None:
        raise ValueError("does not go with task.test, which has no such score; leave that out")
