"""What is known of each kind of task before anything is loaded; `distill/tasks/` has the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class KindFacts:
    """A kind of task.

    Attributes:
        metrics: All of them to be large; the first is the default.
        head: The head of its models, as in transformers' AutoModelFor….
        columns: What the columns of its data are usually called; `label` is None if it has none.
        needs_pair: What the second text is, if there has to be one.
        of_whole_texts: Whether a label is of a text as a whole, so that words may be replaced.
        usual: Other defaults of the task's settings.
    """

    metrics: tuple[str, ...]
    head: str
    columns: Mapping[str, str | None] = field(default_factory=dict)
    needs_pair: str | None = None
    of_whole_texts: bool = False
    usual: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_labels(self) -> bool:
        """Whether its data have labels; else they are raw text."""
        return self.columns.get("label", "label") is not None


KINDS: Mapping[str, KindFacts] = {
    "classification": KindFacts(
        metrics=("accuracy", "f1", "macro_f1", "matthews"),
        head="SequenceClassification",
        of_whole_texts=True,
    ),
    "regression": KindFacts(
        metrics=("spearman", "pearson"), head="SequenceClassification", of_whole_texts=True
    ),
    "multi_label": KindFacts(
        metrics=("macro_f1", "micro_f1", "accuracy"),
        head="SequenceClassification",
        of_whole_texts=True,
    ),
    "tagging": KindFacts(
        metrics=("f1", "precision", "recall", "accuracy"),
        head="TokenClassification",
        columns={"text": "tokens", "label": "ner_tags"},
    ),
    "question_answering": KindFacts(
        metrics=("f1", "exact_match"),
        head="QuestionAnswering",
        columns={"text": "question", "pair": "context", "label": "answers"},
        needs_pair="the context",
        usual={"max_length": 384},
    ),
    "extractive_summary": KindFacts(
        metrics=("rouge1", "rouge2", "rougeL"),
        head="TokenClassification",
        columns={"text": "document", "label": "summary"},
        usual={"max_length": 512},
    ),
    "masked_lm": KindFacts(
        metrics=("accuracy",), head="MaskedLM", columns={"text": "text", "label": None}
    ),
}
