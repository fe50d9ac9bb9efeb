"""Depth, width and input length of a teacher, known before it is loaded or trained."""

from __future__ import annotations

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import TeacherSettings
from lkd_tune.config.settings.width import Width
from lkd_tune.models.families import count_positions, width_of_config
from lkd_tune.models.loading import load_config, read_config, read_depth


def teacher_depth(settings: TeacherSettings) -> int:
    """Returns the number of encoder layers of a teacher.

    Raises:
        SpecError: If its model can't be read.
    """
    if start := teacher_start(settings):
        return read_depth(start)
    assert settings.train is not None  # TeacherSettings checks it
    assert settings.train.architecture is not None
    return settings.train.architecture.layers


def teacher_width(settings: TeacherSettings) -> Width:
    """Returns the width of a teacher.

    Raises:
        SpecError: If its model can't be read.
    """
    if start := teacher_start(settings):
        return width_of_config(load_config(start), start)
    assert settings.train is not None  # TeacherSettings checks it
    form = settings.train.architecture
    assert form is not None
    return Width(form.hidden_size, form.heads, form.intermediate_size or 4 * form.hidden_size)


def teacher_positions(settings: TeacherSettings, task: TaskSettings) -> int | None:
    """Returns the tokens of a teacher's longest input, None if its configuration lacks them.

    Raises:
        SpecError: If its model can't be read.
    """
    if start := teacher_start(settings):
        return count_positions(read_config(start))
    return task.max_length  # as `build_from_scratch` makes it


def teacher_start(settings: TeacherSettings) -> str | None:
    """Returns the model that a teacher is, or is fine-tuned from; None for one from scratch."""
    return settings.model or (settings.train.model if settings.train else None)
