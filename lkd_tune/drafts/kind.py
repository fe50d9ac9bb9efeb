"""The kind of task that a file's columns are for, its metric and its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lkd_tune.drafts.columns import Roles, mean_length
from lkd_tune.drafts.sample import Sample, number_in

# Whole numbers with more different values than this are measured, not classes.
_MOST_NUMBERED = 20
# Above this share of the largest class, accuracy hardly tells a good model from a constant one.
_UNBALANCED = 0.7
# Summaries are this much longer than names of classes.
_SUMMARY_CHARACTERS = 60


@dataclass(frozen=True)
class Guess:
    """What a model has to predict.

    Attributes:
        kind: The value of `task.kind`.
        why: What in the data shows it.
        metric: The value of `task.metric`.
        why_metric: Why this one.
        labels: Names of the classes if the data's own order would not do; None otherwise.
        classes: Number of classes seen; None if there are none.
    """

    kind: str
    why: str
    metric: str
    why_metric: str
    labels: list[str] | None = None
    classes: int | None = None


def guess_kind(sample: Sample, roles: Roles) -> Guess:
    """Returns the kind of task for the columns of a file."""
    if roles.label is None:
        return Guess("masked_lm", "there is no label", "accuracy", "of the masked words")
    values = [value for value in sample.values(roles.label) if value not in (None, "")]
    first: Any = values[0] if values else ""
    if isinstance(first, Mapping):
        return Guess("question_answering", "the label has answers in a text", "f1", "of words")
    if isinstance(first, list):
        return _of_lists(sample, roles, values)
    texts = [str(value).strip() for value in values]
    numbers = [number_in(text) for text in texts]
    different = Counter(texts)
    if all(number is not None for number in numbers):
        whole = all(number is not None and number.is_integer() for number in numbers)
        if not whole or len(different) > _MOST_NUMBERED:
            why = "the labels are numbers, " + (
                f"{len(different)} different ones" if whole else "with fractions"
            )
            return Guess("regression", why, "spearman", "does the order agree?")
        return _of_classes(different, _renamed(different, values))
    joined = {part.strip() for text in texts for part in text.split(",")}
    commas = sum("," in text for text in texts) / len(texts)
    if commas > 0.1 and len(joined) < len(different):
        why = "labels are separated by commas"
        return Guess("multi_label", why, "macro_f1", "each class counts", classes=len(joined))
    if mean_length(texts) > _SUMMARY_CHARACTERS and len(different) > len(texts) / 2:
        why = "labels are texts, each another one"
        return Guess("extractive_summary", why, "rouge1", "the usual one")
    return _of_classes(different, None)


def _of_lists(sample: Sample, roles: Roles, values: list[Any]) -> Guess:
    texts = sample.values(roles.text)
    if any(isinstance(text, list) for text in texts):
        return Guess("tagging", "text and labels are lists", "f1", "of entities")
    classes = len({str(each) for value in values for each in value})
    return Guess("multi_label", "labels are lists", "macro_f1", "each class counts", None, classes)


def _of_classes(counts: Counter[str], labels: list[str] | None) -> Guess:
    share = max(counts.values()) / counts.total()
    metric = "macro_f1" if share > _UNBALANCED else "accuracy"
    why = f"the largest class has {share:.0%} of the rows"
    names = ", ".join(name for name, _ in counts.most_common(3))
    more = ", …" if len(counts) > 3 else ""
    kind = f"{len(counts)} different labels: {names}{more}"
    return Guess("classification", kind, metric, why, labels, len(counts))


def _renamed(counts: Counter[str], values: list[Any]) -> list[str] | None:
    """Returns names for numbers that are not ids from 0 on, as the stars 1 to 5; None for ids.

    Only numbers that are text can be names: the reader takes others for ids.
    """
    numbers = sorted(counts, key=float)
    if not all(isinstance(value, str) for value in values):
        return None
    return numbers if min(map(float, numbers)) > 0 and all(n.isdigit() for n in numbers) else None
