"""All kinds of tasks, by the names of `task.kind`."""

from __future__ import annotations

from collections.abc import Mapping

from lkd_tune.distill.tasks.answers import QuestionAnswering
from lkd_tune.distill.tasks.kind import Kind
from lkd_tune.distill.tasks.masked_words import MaskedWords
from lkd_tune.distill.tasks.sentences import Classification, MultiLabel, Regression
from lkd_tune.distill.tasks.summaries import Summaries
from lkd_tune.distill.tasks.tagging import Tagging
from lkd_tune.spec.settings import TaskSettings

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
