"""All kinds of tasks, by their names in `task.kind`."""

from __future__ import annotations

from collections.abc import Mapping

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.tasks.classification import Classification, MultiLabel, Regression
from lkd_tune.data.tasks.extractive_summary import ExtractiveSummary
from lkd_tune.data.tasks.masked_lm import MaskedLM
from lkd_tune.data.tasks.question_answering import QuestionAnswering
from lkd_tune.data.tasks.tagging import Tagging

TASK_KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Classification(),
        Regression(),
        MultiLabel(),
        Tagging(),
        QuestionAnswering(),
        ExtractiveSummary(),
        MaskedLM(),
    )
}


def kind_of(task: TaskSettings) -> Kind:
    """Returns the kind of a task."""
    return TASK_KINDS[task.kind]
