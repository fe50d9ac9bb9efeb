"""All kinds of tasks, by the names of `task.kind`."""

from __future__ import annotations

from collections.abc import Mapping

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.tasks.classification import Classification, MultiLabel, Regression
from lkd_tune.data.tasks.extractive_summary import Summaries
from lkd_tune.data.tasks.masked_lm import MaskedWords
from lkd_tune.data.tasks.question_answering import QuestionAnswering
from lkd_tune.data.tasks.tagging import Tagging

_ALL: tuple[Kind, ...] = (
    Classification(),
    Regression(),
    MultiLabel(),
    Tagging(),
    QuestionAnswering(),
    Summaries(),
    MaskedWords(),
)
_KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}


def kind_of(task: TaskSettings) -> Kind:
    """Returns what the engine asks of a task."""
    return _KINDS[task.kind]
