"""The interface of a kind of task; each kind is in another file of this folder."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lkd_tune.config.errors import Problem, SpecError, did_you_mean
from lkd_tune.config.settings.losses import LogitLoss
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.types import IGNORED, UNLABELLED, Batch, Encoded, Split, Tokens, is_labelled
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.logits import soft_labels

# Larger ids are not classes but, for example, dates; a head for them would not fit in memory.
_MAX_CLASSES = 100_000


class Kind(ABC):
    """A kind of task: how its data are read, its labels, its logit loss and its metrics.

    B examples in a batch, N tokens, C outputs of the head, R rows: the distributions that the logit
    loss compares one by one, such as one per example, per labelled token or per masked word.

    An object keeps no state, so one serves all tasks of its kind. Its methods are called in this
    order:

    1. Reading a split, on the host: `class_names` with the training split's labels (once, unless
       `task.labels` names the classes), `metric_problem`, `read_texts`, `read_labels`. What they
       return is checked: all later methods may assume that texts and labels are usable.
    2. Tokenising a split: `encode`, once for each tokenizer. The result is cached on disk, so it
       may depend on nothing but the arguments.
    3. Training, for each micro-batch and on each rank: `prepare_batch` before the batch leaves the
       host, `count_loss_rows` and `count_labelled_rows` to sum both over the whole batch, then
       `logits` of the student's and the teacher's output, `loss_rows` of both, `loss_labels`,
       `hard_label_loss` and `soft_label_loss`. Losses are sums over rows: the caller divides by
       their number in the whole batch, that of the loss against labels by the labelled ones.
       Unless `has_dynamic_inputs`, the teacher's `logits` may come from a store.
    4. Scoring a split: `prepare_batch` with seed and step 0, `logits` and `scoring_outputs` for
       each batch, then `score` once on the host with the outputs of all examples in their order.
    5. Comparing and explaining models: `constant_outputs`, `bootstrap_metric`, `predictions`,
       `data_row`. Kinds without labels do not need `bootstrap_metric` and `predictions`.

    A kind of another sort differs in the same places. Causal language modelling: `encode` packs
    blocks, `loss_rows` drops the last position of each and `loss_labels` the first token,
    `num_outputs` stays None (the vocabulary). Sentence embeddings: `logits` returns the pooled
    vectors (B, C), the soft loss compares these or their similarities, `score` correlates them with
    the labels.
    """

    name: ClassVar[str]
    """The kind's name in `task.kind` and in `KINDS`."""
    per_token: ClassVar[bool] = False
    """Whether the logits are per token, shape (B, N, C), not per example, (B, C)."""
    token_labels: ClassVar[bool] = False
    """Whether the labels are per token, too."""
    has_dynamic_inputs: ClassVar[bool] = False
    """Whether inputs change from step to step, so that no teacher targets can be stored."""
    num_outputs: ClassVar[int | None] = None
    """C, if it is the same for all tasks of the kind; then `class_names` is called without data.
    None: the number of classes, or of token ids if the kind has no labels."""
    link: ClassVar[str] = "softmax"
    """The function that turns logits into predictions; see `losses.logits.soft_labels`."""

    @property
    def head(self) -> str:
        """The head of the kind's models, as in transformers' AutoModelFor…."""
        return KINDS[self.name].head

    def class_names(self, raw: list[Any], where: str, column: str) -> list[str] | None:
        """Returns the names of the classes in a training split, None if the kind has no classes.

        Args:
            raw: The values of the label column; [] if the kind has no labels.
            where: The source, for error messages.
            column: The label column's name.

        Raises:
            SpecError: If a label can't be used; the message names its row.
        """
        return None

    def metric_problem(self, task: TaskSettings, names: list[str]) -> Problem | None:
        """Returns the problem if `task.metric` is not defined for these classes, else None."""
        return None

    def read_texts(self, raw: list[Any], where: str, column: str) -> list[Any]:
        """Returns the text of each example, checked; by default as strings.

        Args:
            raw: The values of the text column.
            where: The source, for error messages.
            column: The text column's name.

        Raises:
            SpecError: If a text can't be used; the message names its row.
        """
        return ["" if value is None else str(value) for value in raw]

    @abstractmethod
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[Any]:
        """Returns the labels of a split, checked.

        Args:
            raw: The values of the label column; [] if the kind has no labels.
            split: Texts and pairs as read before, without labels.
            names: Names of the classes, None if the kind has none.
            where: The source, for error messages.
            column: The label column's name.

        Raises:
            SpecError: If a label can't be used; the message names its row.
        """

    def encode(
        self, task: TaskSettings, split: Split, tokenizer: Any, names: list[str] | None
    ) -> Encoded:
        """Returns a split as token ids; by default an example is a text or a pair."""
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
        """Returns the labels of a split as an array, one entry per example.

        Those that are None become `UNLABELLED`, or NaN if labels are numbers.
        """
        return np.asarray([UNLABELLED if one is None else one for one in label], np.int64)

    def logits(self, output: Any) -> Tensor:
        """Returns the logits in a model's output, shape (B, C) or (B, N, C)."""
        return output.logits

    def prepare_batch(self, batch: Batch, tokens: Tokens, seed: int, step: int) -> Batch:
        """Returns a batch as student and teacher see it in a step; a function of its arguments.

        Args:
            batch: Examples of the split, on the host.
            tokens: The split.
            seed: The trial's seed; 0 in scoring.
            step: Optimizer steps done; 0 in scoring.
        """
        return batch

    def scoring_outputs(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns what `score` needs, for each example or, if `per_token`, for each token."""
        return logits

    def loss_rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the logits that the loss compares, shape (R, C). Called for the teacher's too."""
        return logits

    def loss_labels(self, batch: Batch) -> Tensor:
        """Returns the labels of the rows, shape (R,) or (R, C)."""
        return batch.labels

    def count_loss_rows(self, batch: Batch) -> int:
        """Returns R, the number of rows that the batch adds to the loss."""
        return len(batch.labels)

    def count_labelled_rows(self, batch: Batch) -> int:
        """Returns how many of the R rows have a label."""
        return int(is_labelled(self.loss_labels(batch)).sum())

    def hard_label_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss against the labels, summed over the rows that have one, 0-dim."""
        entropy = torch.nn.functional.cross_entropy
        return entropy(rows, labels, reduction="sum", ignore_index=UNLABELLED)

    def soft_label_loss(self, rows: Tensor, teacher: Tensor, settings: LogitLoss) -> LossSum:
        """Returns the loss against the teacher's rows, summed."""
        return soft_labels(
            rows,
            teacher,
            temperature=settings.temperature,
            link=self.link,
            divergence=settings.divergence,
            scaled=settings.scaled,
        )

    @abstractmethod
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        """Returns the kind's `metrics` and `reported` values in `KINDS`, by name.

        Args:
            outputs: The `scoring_outputs` of all examples, float32, shape (examples, C), or
                unpadded (all tokens, C) if `per_token`.
            tokens: The split.
        """

    def constant_outputs(self, tokens: Tokens) -> np.ndarray | None:
        """Returns the best outputs that do not depend on the input, as for `score`.

        A model whose metric is not above theirs has learned nothing of the task. None: every model
        that has learned something scores above 0.
        """
        return None

    def bootstrap_metric(
        self, outputs: np.ndarray, tokens: Tokens, metric: str, draws: np.ndarray
    ) -> np.ndarray:
        """Returns a metric on bootstrap samples of the rows of the data, shape (draws,).

        Args:
            outputs: As for `score`.
            tokens: The split.
            metric: A name that `score` returns.
            draws: Indices of the sampled rows, shape (draws, rows).
        """
        raise NotImplementedError  # never called for a kind without labels

    def data_row(self, example: int, tokens: Tokens) -> int:
        """Returns the row of the data that an example comes from, counted from 0."""
        return example

    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        """Returns the prediction for each row of the data, JSON-serialisable.

        Args:
            outputs: As for `score`.
            tokens: The split.
            split: The same as text.
            names: Names of the classes, None if the kind has none.

        Returns:
            For each row its `label` and `prediction`, and further entries of the kind.
        """
        raise NotImplementedError  # never called for a kind without labels


class LabelledTokens(Kind):
    """A kind whose loss compares the tokens with a label; R is their number."""

    def loss_rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the logits of the tokens with a label, shape (R, C)."""
        return logits[batch.labels != IGNORED]

    def loss_labels(self, batch: Batch) -> Tensor:
        """Returns their labels, shape (R,)."""
        return batch.labels[batch.labels != IGNORED]

    def count_loss_rows(self, batch: Batch) -> int:
        """Returns R, the number of rows that the batch adds to the loss."""
        return int((batch.labels != IGNORED).sum())


def rounded(number: float) -> float:
    """Returns a number rounded to 6 significant digits, the precision of fp32."""
    return float(f"{number:.6g}")


def row_error(where: str, column: str, row: int, message: str) -> SpecError:
    """Returns the error for a row of the data that can't be used, counted from 1."""
    return SpecError(Problem("", "task.columns", f"{where}, row {row}, column {column}: {message}"))


def read_each(raw: Iterable[Any], read: Callable[[Any], Any], where: str, column: str) -> list[Any]:
    """Returns what a function makes of each value of a column.

    Args:
        raw: The values.
        read: Raises a ValueError for a value that can't be used.
        where: The source, for error messages.
        column: The column's name.

    Raises:
        SpecError: With the first row that can't be used, and the number of such rows.
    """
    found, problems = [], []
    for row, value in enumerate(raw, 1):
        try:
            found.append(read(value))
        except ValueError as error:
            problems.append((row, str(error)))
    if problems:
        row, message = problems[0]
        others = len(problems) - 1
        more = f" ({others:,} more row{'s' if others > 1 else ''} can't be read)" if others else ""
        raise row_error(where, column, row, message + more)
    return found


def class_id(value: Any, names: list[str] | None) -> int:
    """Returns the id of a class that the data give by id or by name.

    Raises:
        ValueError: If there is no such class, or the value is empty.
    """
    value = _trimmed(value)
    if value is None or value == "":
        raise ValueError("has no label; give it one, or leave the row out")
    if isinstance(value, str) and names is not None and value in names:
        return names.index(value)
    whole = _is_number(value) and float(value).is_integer()
    # If class names are numbers, such as ratings, a number given as text is a name, not an id.
    named = isinstance(value, str) and names and all(name.isdigit() for name in names)
    if named or not whole:
        hint = f"task.labels: {', '.join(names or [])}"
        if not names:
            hint = "use ids or names; for numbers set task.kind to regression"
        near = did_you_mean(str(value), names or [])
        raise ValueError(f"{value!r} is not a class{near}; {hint}")
    found, limit = int(float(value)), len(names) if names else _MAX_CLASSES
    if not 0 <= found < limit:
        hint = "name further classes in task.labels"
        if found == -1:
            hint = "the labels of this split are hidden"
        raise ValueError(f"has the label {found}, allowed are 0–{limit - 1}; {hint}")
    return found


def classes_in(labels: Iterable[tuple[int, Any]], where: str, column: str) -> list[str]:
    """Returns the names of the classes in a label column, in the order of their ids.

    Ids get the names that transformers gives to unnamed classes: LABEL_0, LABEL_1, …

    Args:
        labels: Pairs of row (counted from 1) and label.
        where: The source, for error messages.
        column: The label column's name.

    Raises:
        SpecError: If a label can't be used (the message names its row), or if there is none.
    """
    labels = [(row, _trimmed(value)) for row, value in labels]
    if not labels:
        raise SpecError(Problem("", "task.columns", f"{where}, column {column}: holds no label"))
    are_ids = all(value is None or _is_number(value) for _, value in labels)
    names, last = set[str](), 0
    for row, value in labels:
        try:
            if not (are_ids or value is None or isinstance(value, str)):
                raise ValueError(
                    f"{value!r} is not a class: use ids for all rows, or names for all"
                )
            last = max(last, class_id(value, None if are_ids else [str(value)]))
        except ValueError as error:
            raise row_error(where, column, row, str(error)) from None
        names.add(str(value))
    return [f"LABEL_{number}" for number in range(last + 1)] if are_ids else sorted(names)


def are_numbered(names: Sequence[str]) -> bool:
    """Returns whether the names of classes are numbers only, so that they carry no meaning."""
    return all(re.fullmatch(r"(LABEL_)?\d+", name) for name in names)


def _trimmed(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
