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
            raise ValueError(f"must be a task with labels to fine-tune on, found {task.kind}")
        if task.unlabelled is not None:
            raise ValueError("students are fine-tuned on labels; remove unlabelled")
        return task


def score_name(task: TaskSettings, evaluate_on: EvaluateOn | None) -> str:
    """Returns the name of a trial's score.

    A score on another task has a name that differs from all metrics of the trial's own task, so
    that they can't be confused: the teacher, for example, has no such score.
    """
    scored = evaluate_on.task if evaluate_on else None
    return task.metric if scored is None else f"{scored.name} {scored.metric}"


def check_evaluate_on(task: TaskSettings) -> None:
    """Checks that the students of a task can be scored on another task.

    Raises:
        ValueError: If the task has labels, or a test split, which would score the winner by
            another metric than dev.
    """
    if KINDS[task.kind].has_labels:
        raise ValueError(
            f"is only for task.kind masked_lm; students of {task.kind} are scored on their task"
        )
    if task.test is not None:
        raise ValueError(
            "can't be combined with task.test, which gives no such score; remove task.test"
        )
