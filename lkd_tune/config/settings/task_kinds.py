"""The properties of each kind of task that settings need; its code is in `data/tasks/`.

A new kind needs an entry here, a class in a file of `data/tasks/` and a line in
`data/tasks/registry.py`. A new metric needs its name here and its code in the kind's class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal


def _no_problem(task: Any) -> str | None:
    return None


@dataclass(frozen=True)
class TaskKindInfo:
    """A kind of task.

    Attributes:
        metrics: The values that `task.metric` may have; a search maximises it. The first one is the
            default.
        head: The head of its models, named as in transformers' AutoModelFor….
        pipeline: The hub's name of the task, for model cards.
        reported: Other values that scoring reports; a search can't maximise them.
        columns: The usual names of the columns of its data; `label` is None if it has no labels.
        needs_pair: Name of the second text for messages, if the kind requires one.
        needs_label: Why all of its text needs labels, or why none has any; None if the teacher's
            answers can stand for them.
        of_whole_texts: Whether a label describes a whole text, so that augmentation may replace
            words.
        usual: Defaults of other task settings.
        problem: Function that returns what is wrong with a `TaskSettings` of this kind, or None.
    """

    metrics: tuple[str, ...]
    head: str
    pipeline: str
    reported: tuple[str, ...] = ()
    columns: Mapping[str, str | None] = field(default_factory=dict)
    needs_pair: str | None = None
    needs_label: str | None = None
    of_whole_texts: bool = False
    usual: Mapping[str, Any] = field(default_factory=dict)
    problem: Callable[[Any], str | None] = _no_problem

    @property
    def has_labels(self) -> bool:
        """Whether its data have labels; data without labels are raw text."""
        return self.columns.get("label", "label") is not None


def _stride_problem(task: Any) -> str | None:
    if task.stride < task.max_length - 8:
        return None
    return f"stride {task.stride} leaves no room in max_length {task.max_length}"


def _summary_labels_problem(task: Any) -> str | None:
    if not task.labels or len(task.labels) == 2:
        return None
    return "labels of extractive_summary name two classes: out, in"


KINDS: Mapping[str, TaskKindInfo] = {
    "classification": TaskKindInfo(
        metrics=("accuracy", "f1", "macro_f1", "matthews"),
        head="SequenceClassification",
        pipeline="text-classification",
        of_whole_texts=True,
    ),
    "regression": TaskKindInfo(
        metrics=("spearman", "pearson"),
        head="SequenceClassification",
        pipeline="text-classification",
        of_whole_texts=True,
    ),
    "multi_label": TaskKindInfo(
        metrics=("macro_f1", "micro_f1", "accuracy"),
        head="SequenceClassification",
        pipeline="text-classification",
        of_whole_texts=True,
    ),
    "tagging": TaskKindInfo(
        metrics=("f1", "precision", "recall", "accuracy"),
        head="TokenClassification",
        pipeline="token-classification",
        columns={"text": "tokens", "label": "ner_tags"},
    ),
    "question_answering": TaskKindInfo(
        metrics=("f1", "exact_match"),
        head="QuestionAnswering",
        pipeline="question-answering",
        columns={"text": "question", "pair": "context", "label": "answers"},
        needs_pair="the context",
        usual={"max_length": 384},
        problem=_stride_problem,
    ),
    "extractive_summary": TaskKindInfo(
        metrics=("rouge1", "rouge2", "rougeL"),
        head="TokenClassification",
        pipeline="summarization",
        # The scores of each document's first sentences.
        reported=("lead_rouge1", "lead_rouge2", "lead_rougeL"),
        columns={"text": "document", "label": "summary"},
        needs_label="the summary tells which sentences of a document are compared",
        usual={"max_length": 512},
        problem=_summary_labels_problem,
    ),
    "masked_lm": TaskKindInfo(
        metrics=("accuracy",),
        head="MaskedLM",
        pipeline="fill-mask",
        reported=("loss", "perplexity"),
        columns={"text": "text", "label": None},
        needs_label="its text has no labels, so add the text to task.train",
    ),
}

METRICS = tuple(sorted({metric for kind in KINDS.values() for metric in kind.metrics}))

if TYPE_CHECKING:
    TaskKindName = str
    MetricName = str
else:
    TaskKindName = Literal[tuple(KINDS)]
    MetricName = Literal[METRICS]
