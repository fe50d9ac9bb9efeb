"""What the engine asks of a kind of task; each kind is a file beside this one."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.types import IGNORED, Batch, Encoded, Split, Tokens
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.logits import soft_labels

# Ids above are something else than classes, such as a column of dates; a head for them has no room.
_MOST_CLASSES = 100_000


class Kind(ABC):
    """A kind of task: its head, labels, logit loss and metrics.

    B examples in a batch, N tokens, C classes, R rows: what the logit loss compares one by one.
    """

    name: ClassVar[str]
    """What `task.kind` calls it."""
    per_token: ClassVar[bool] = False
    """Whether the logits are of tokens, shape (B, N, C), not (B, C)."""
    token_labels: ClassVar[bool] = False
    """Whether the labels are of tokens, too."""
    has_dynamic_inputs: ClassVar[bool] = False
    """Whether inputs change from step to step, so that nothing of the teacher can be stored."""
    num_outputs: ClassVar[int | None] = None
    """C, where the kind alone says it, and so the names of classes, too: no data are asked."""
    link: ClassVar[str] = "softmax"
    """What turns logits into predictions; see `soft_label_loss`."""

    @property
    def head(self) -> str:
        """The head, as in transformers' AutoModelFor…"""
        return KINDS[self.name].head

    def class_names(self, raw: list[Any], where: str, column: str) -> list[str] | None:
        """Returns the names of the classes in a training split, None if the kind has no classes.

        Args:
            raw: The label column.
            where: What error messages call the source.
            column: The label column's name.

        Raises:
            SpecError: Naming the row of a label that can't be used.
        """
        return None

    def metric_problem(self, task: TaskSettings, names: list[str]) -> Problem | None:
        """Returns what of the task's settings does not go with the names of its classes."""
        return None

    def read_texts(self, raw: list[Any], where: str, column: str) -> list[Any]:
        """Returns the text of each example, checked: here as strings.

        Args:
            raw: The text column.
            where: What error messages call the source.
            column: The text column's name.

        Raises:
            SpecError: Naming the row of a text that can't be used.
        """
        return ["" if value is None else str(value) for value in raw]

    @abstractmethod
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[Any]:
        """Returns the labels of a split, checked.

        Args:
            raw: The label column.
            split: The text, without labels.
            names: Names of the classes.
            where: What error messages call the source.
            column: The label column's name.

        Raises:
            SpecError: Naming the row of a label that can't be used.
        """

    def encode(
        self, task: TaskSettings, split: Split, tokenizer: Any, names: list[str] | None
    ) -> Encoded:
        """Returns a split in tokens: here one row for a text or a pair."""
        encoded = tokenizer(
            split.text,
            split.pair,
            truncation=True,
            max_length=task.max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        labels = self.label_array(split.label, names)
        return Encoded(encoded["input_ids"], encoded["token_type_ids"], labels, {})

    def label_array(self, label: list[Any], names: list[str] | None) -> np.ndarray:
        """Returns the labels of a split as an array, one entry for an example."""
        return np.asarray(label, np.int64)

    def logits(self, output: Any) -> Tensor:
        """Returns what of a model's output is compared, shape (B, C) or (B, N, C)."""
        return output.logits

    def prepare_batch(self, batch: Batch, tokens: Tokens, seed: int, step: int) -> Batch:
        """Returns a batch as student and teacher are to see it in a step.

        Args:
            batch: Examples as they are, on the host.
            tokens: The split they are of.
            seed: The trial's; 0 in an evaluation.
            step: Optimizer steps done; 0 in an evaluation.
        """
        return batch

    def scoring_outputs(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns what scoring needs of the logits, for each example or, if `per_token`, token."""
        return logits

    def loss_rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the logits that the loss compares, shape (R, C)."""
        return logits

    def loss_labels(self, batch: Batch) -> Tensor:
        """Returns the labels of the rows, shape (R,) or (R, C)."""
        return batch.labels

    def count_loss_rows(self, batch: Batch) -> int:
        """Returns R."""
        return len(batch.labels)

    def hard_label_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss against the labels, summed over the rows, 0-dim."""
        return torch.nn.functional.cross_entropy(rows, labels, reduction="sum")

    def soft_label_loss(self, rows: Tensor, teacher: Tensor, temperature: float) -> LossSum:
        """Returns the loss against the teacher's rows, summed."""
        return soft_labels(rows, teacher, temperature=temperature, link=self.link)

    @abstractmethod
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        """Returns all metrics of the kind.

        Args:
            outputs: The answers, shape (examples, C), or unpadded (all tokens, C) if `per_token`.
            tokens: The split.
        """

    def bootstrap_metric(
        self, outputs: np.ndarray, tokens: Tokens, metric: str, draws: np.ndarray
    ) -> np.ndarray:
        """Returns a metric on rows of the data that are drawn again, shape (draws,).

        Args:
            outputs: As for `score`.
            tokens: The split.
            metric: One of those of `score`.
            draws: Numbers of rows, shape (draws, rows).
        """
        raise NotImplementedError  # never asked of a kind without labels

    def data_row(self, example: int, tokens: Tokens) -> int:
        """Returns the number of the row of the data that an example is of, from 0."""
        return example

    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        """Returns what is predicted for each row of the data, as JSON holds it.

        Args:
            outputs: As for `score`.
            tokens: The split.
            split: The same in words.
            names: Names of the classes.

        Returns:
            For each row its `label` and the `prediction`, and what the kind can tell beyond that.
        """
        raise NotImplementedError  # never asked of a kind without labels


class LabelledTokens(Kind):
    """A kind whose loss compares the tokens that have a label; R is their number."""

    def loss_rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the logits of the tokens with a label, shape (R, C)."""
        return logits[batch.labels != IGNORED]

    def loss_labels(self, batch: Batch) -> Tensor:
        """Returns their labels, shape (R,)."""
        return batch.labels[batch.labels != IGNORED]

    def count_loss_rows(self, batch: Batch) -> int:
        """Returns R."""
        return int((batch.labels != IGNORED).sum())


def rounded(number: float) -> float:
    """Returns a number with as many digits as fp32 gives, for a file that people read."""
    return float(f"{number:.6g}")


def row_error(where: str, column: str, row: int, message: str) -> SpecError:
    """Returns the error for a row of the data (the first is 1) that can't be used."""
    return SpecError(Problem("", "task.columns", f"{where}, row {row}, column {column}: {message}"))


def class_id(value: Any, names: list[str] | None) -> int:
    """Returns the id of a class given by id or by name.

    Raises:
        ValueError: If there is no such class.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("has no label; give it one, or leave the row out")
    if isinstance(value, str) and names is not None and value in names:
        return names.index(value)
    whole = _is_number(value) and float(value).is_integer()
    # Where numbers are names, as of stars, a number in a text is no id.
    named = isinstance(value, str) and names and all(name.isdigit() for name in names)
    if named or not whole:
        hint = f"task.labels: {', '.join(names or [])}"
        if not names:
            hint = "use ids or names; for numbers set task.kind to regression"
        raise ValueError(f"{value!r} is no class; {hint}")
    found, most = int(float(value)), len(names) if names else _MOST_CLASSES
    if not 0 <= found < most:
        hint = "further classes are named in task.labels"
        if found == -1:
            hint = "the labels of this split are hidden"
        raise ValueError(f"has the label {found}, allowed is 0–{most - 1}; {hint}")
    return found


def classes_in(labels: Iterable[tuple[int, Any]], where: str, column: str) -> list[str]:
    """Returns the names of the classes that labels stand for, in the order of their ids.

    Labels that are ids get names by number, those that transformers gives to classes without names.

    Args:
        labels: Row and label.
        where: What error messages call the source.
        column: The label column's name.

    Raises:
        SpecError: Naming the row of a label that can't be used; or if there is none.
    """
    labels = list(labels)
    if not labels:
        raise SpecError(Problem("", "task.columns", f"{where}, column {column}: holds no label"))
    are_ids = all(value is None or _is_number(value) for _, value in labels)
    names, last = set[str](), 0
    for row, value in labels:
        try:
            if not (are_ids or value is None or isinstance(value, str)):
                raise ValueError(f"{value!r} is no class: all have to be ids, or all names")
            last = max(last, class_id(value, None if are_ids else [str(value)]))
        except ValueError as error:
            raise row_error(where, column, row, str(error)) from None
        names.add(str(value))
    return [f"LABEL_{number}" for number in range(last + 1)] if are_ids else sorted(names)


def are_numbered(names: Sequence[str]) -> bool:
    """Returns whether classes have numbers for names, which say nothing of what they are."""
    return all(re.fullmatch(r"(LABEL_)?\d+", name) for name in names)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
