"""The settings of a whole space file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ValidationInfo, field_validator, model_validator

from lkd_tune.config.objectives import ObjectiveName
from lkd_tune.config.settings.base import Settings, block_from
from lkd_tune.config.settings.evaluate_on import EvaluateOn, check_evaluate_on, score_name
from lkd_tune.config.settings.layer_map import LayerMapSettings
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.search import (
    ConfirmSettings,
    KeepSettings,
    LimitSettings,
    SearchSettings,
)
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings, check_share
from lkd_tune.config.settings.teacher import TargetSettings, TeacherSettings
from lkd_tune.config.settings.trackers import TrackerSettings
from lkd_tune.config.settings.training import ResourceSettings, TrainSettings, check_batch


class SpaceSettings(Settings):
    """The settings of a space file, with a value in place of each distribution."""

    task: Annotated[TaskSettings, block_from("name")]
    teacher: Annotated[TeacherSettings, block_from("model")]
    evaluate_on: Annotated[EvaluateOn | None, block_from("task", optional=True)] = None
    """masked_lm: the task on which students are fine-tuned at the end of each trial to score them.
    Early stopping uses the accuracy of masked words. Default: that accuracy is the score."""
    student: StudentSettings = StudentSettings()
    layer_map: Annotated[LayerMapSettings, block_from("word")] = LayerMapSettings()
    losses: Annotated[LossSettings, block_from("recipe")] = LossSettings()
    train: TrainSettings = TrainSettings()
    targets: TargetSettings = TargetSettings()
    search: SearchSettings = SearchSettings()
    resources: ResourceSettings = ResourceSettings()
    keep: KeepSettings = KeepSettings()
    objectives: tuple[ObjectiveName, ...] = ("score",)
    """What the search optimises: the score (maximised) and any of the costs in `limits`
    (minimised). Several objectives give a Pareto front and a recommended knee."""
    limits: LimitSettings = LimitSettings()
    confirm: ConfirmSettings | None = None
    """At the end, train the best trials with new seeds. Default: no confirmation; the winner has
    the best score with one seed."""
    trackers: TrackerSettings = TrackerSettings()

    @property
    def score_name(self) -> str:
        """Name of the score: `accuracy`, or with `evaluate_on` for example `sst2 accuracy`."""
        return score_name(self.task, self.evaluate_on)

    @field_validator("evaluate_on")
    @classmethod
    def _check_evaluate_on(cls, value: EvaluateOn | None, info: ValidationInfo) -> Any:
        if value is not None and "task" in info.data:  # else the task is invalid and reported
            check_evaluate_on(info.data["task"])
        return value

    @field_validator("teacher")
    @classmethod
    def _check_teacher(cls, value: TeacherSettings, info: ValidationInfo) -> Any:
        if value.train is not None and "task" in info.data and info.data["task"].train is None:
            raise ValueError(
                "teacher.train needs labels, and without task.train there are none; name a "
                "fine-tuned model in teacher.model"
            )
        return value

    @field_validator("losses")
    @classmethod
    def _check_losses(cls, value: LossSettings, info: ValidationInfo) -> Any:
        if "task" in info.data:
            value.check_labels(info.data["task"].train)
        return value

    @field_validator("train")
    @classmethod
    def _check_train(cls, value: TrainSettings, info: ValidationInfo) -> Any:
        if "task" in info.data:
            check_share(info.data["task"], value)
        return value

    @model_validator(mode="after")
    def _check(self) -> SpaceSettings:
        check_batch(self.train, self.resources)
        if self.evaluate_on is not None:
            check_batch(self.evaluate_on.train, self.resources, key="evaluate_on.train")
        if self.task.kind == "masked_lm" and self.student.vocab == "trim":
            raise ValueError("student.vocab: trim would remove words that masked_lm predicts")
        if "score" not in self.objectives or len({*self.objectives}) < len(self.objectives):
            raise ValueError(
                f"objectives must contain score, and none twice; found {', '.join(self.objectives)}"
            )
        if len(self.objectives) > 1:
            self.search.check_several_objectives()
        return self
