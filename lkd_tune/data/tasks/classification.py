"""Tasks on a text or a pair of texts: one class, a number, or several classes."""

from __future__ import annotations

import contextlib
import warnings
from abc import abstractmethod
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import Tensor
from typing_extensions import override

from lkd_tune.config.settings.losses import LogitLoss
from lkd_tune.data.tasks.base import Kind, class_id, classes_in, read_each, rounded
from lkd_tune.data.types import Split, Tokens, is_labelled
from lkd_tune.losses.base import LossSum
from lkd_tune.losses.logits import soft_labels


class WholeText(Kind):
    """A kind with one prediction per text or pair; metrics compare outputs with labels alone."""

    @abstractmethod
    def metrics(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], float]]:
        """Returns a function for each metric by name; it returns NaN where the metric is undefined.

        Args:
            outputs: Shape (examples, C).
            labels: The labels as `label_array` returns them.
        """

    @override
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        metrics = self.metrics(outputs, tokens.labels)
        return {name: _value(metric) for name, metric in metrics.items()}

    @override
    def bootstrap_metric(
        self, outputs: np.ndarray, tokens: Tokens, metric: str, draws: np.ndarray
    ) -> np.ndarray:
        samples = (self.metrics(outputs[rows], tokens.labels[rows])[metric] for rows in draws)
        return np.array([_value(each) for each in samples])


class Classification(WholeText):
    """One class for each text or pair."""

    name = "classification"

    @override
    def class_names(self, raw: list[Any], where: str, column: str) -> list[str]:
        return classes_in(enumerate(raw, 1), where, column)

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[int]:
        return read_each(raw, lambda value: class_id(value, names), where, column)

    @override
    def constant_outputs(self, tokens: Tokens) -> np.ndarray:
        """Returns the logits of the largest class."""
        counts = np.bincount(tokens.labels)
        return np.tile((counts == counts.max()).astype(np.float32), (len(tokens), 1))

    @override
    def metrics(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], float]]:
        """Returns accuracy, Matthews correlation, macro F1, and F1 of class 1.

        With more than two classes, `f1` is macro F1.
        """
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        both = labels, outputs.argmax(-1)
        macro_f1 = cache(partial(f1_score, *both, average="macro", zero_division=0))
        # F1 of class 1, as GLUE reports for MRPC and QQP, is defined for two classes only.
        f1 = partial(f1_score, *both, zero_division=0) if outputs.shape[-1] == 2 else macro_f1
        return {
            "accuracy": partial(accuracy_score, *both),
            "matthews": partial(matthews_corrcoef, *both),
            "macro_f1": macro_f1,
            "f1": f1,
        }

    @override
    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        assert names is not None
        return [
            {
                "label": names[label],
                "prediction": names[best],
                "probabilities": _by_name(row, names),
            }
            for label, best, row in zip(
                split.label, outputs.argmax(-1), softmax(outputs, -1), strict=True
            )
        ]


class Regression(WholeText):
    """A number for each text or pair."""

    name = "regression"
    num_outputs = 1
    link = "identity"

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[float]:
        def number(value: Any) -> float:
            with contextlib.suppress(TypeError, ValueError):
                if np.isfinite(found := float(value)):
                    return found
            raise ValueError(f"{value!r} is not a number")

        return read_each(raw, number, where, column)

    @override
    def label_array(self, label: list[Any], names: list[str] | None) -> np.ndarray:
        return np.asarray(label, np.float32)  # of None that is NaN

    @override
    def hard_label_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        ours = rows[:, 0]
        # Without a label the difference is 0, and so is its gradient. An index would be a GPU sync.
        labels = torch.where(labels.isnan(), ours.detach(), labels)
        return torch.nn.functional.mse_loss(ours, labels, reduction="sum")

    @override
    def soft_label_loss(self, rows: Tensor, teacher: Tensor, settings: LogitLoss) -> LossSum:
        """Returns the sum of squared differences from the teacher's numbers.

        The temperature is ignored, because it softens probabilities. The published form divides
        both numbers by it. Labels are not divided, so `alpha` would mix two scales. Published
        results for STS-B are at temperature 1.
        """
        return soft_labels(rows, teacher, link=self.link)

    @override
    def metrics(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], float]]:
        """Returns correlations; NaN if the predictions or the labels are constant."""
        from scipy.stats import pearsonr, spearmanr

        predictions = outputs[:, 0]
        if len(labels) < 2:
            return {"pearson": float, "spearman": float}
        return {
            "pearson": lambda: pearsonr(predictions, labels).statistic,
            "spearman": lambda: spearmanr(predictions, labels).statistic,
        }

    @override
    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        return [
            {"label": label, "prediction": rounded(found)}
            for label, found in zip(split.label, outputs[:, 0], strict=True)
        ]


class MultiLabel(WholeText):
    """Any number of classes for each text or pair: a binary decision for each class."""

    name = "multi_label"
    link = "sigmoid"

    @override
    def class_names(self, raw: list[Any], where: str, column: str) -> list[str]:
        labels = (
            (row, value) for row, values in enumerate(raw, 1) for value in _split_labels(values)
        )
        return classes_in(labels, where, column)

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[list[int]]:
        def ids(values: Any) -> list[int]:
            return sorted({class_id(value, names) for value in _split_labels(values)})

        return read_each(raw, ids, where, column)

    @override
    def label_array(self, label: list[Any], names: list[str] | None) -> np.ndarray:
        array = np.zeros((len(label), len(names or ())), np.float32)
        for row, ids in enumerate(label):
            if ids is None:
                array[row] = np.nan
            else:
                array[row, ids] = 1
        return array

    @override
    def hard_label_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean binary cross-entropy over the classes, summed over the labelled rows."""
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        # Zeros in place of NaN: the gradient of a loss that is left out has to be finite, too.
        each = entropy(rows, labels.nan_to_num(), reduction="none").mean(-1)
        return (each * is_labelled(labels)).sum()

    @override
    def constant_outputs(self, tokens: Tokens) -> np.ndarray:
        """Returns the logits of the classes that more than half of the examples have."""
        return np.tile(tokens.labels.mean(0) - 0.5, (len(tokens), 1))

    @override
    def metrics(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], float]]:
        """Returns macro F1, micro F1, and the share of rows with all classes right.

        A class is predicted where its probability is above 1/2.
        """
        from sklearn.metrics import f1_score

        both = labels > 0.5, outputs > 0
        return {
            "macro_f1": partial(f1_score, *both, average="macro", zero_division=0),
            "micro_f1": partial(f1_score, *both, average="micro", zero_division=0),
            "accuracy": lambda: (both[0] == both[1]).all(-1).mean(),
        }

    @override
    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        assert names is not None
        return [
            {
                "label": [names[one] for one in label],
                "prediction": [names[one] for one in np.flatnonzero(logits > 0)],
                "probabilities": _by_name(expit(logits), names),
            }
            for label, logits in zip(split.label, outputs, strict=True)
        ]


def _value(metric: Callable[[], float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # undefined: a class that is never predicted, constant numbers
        return float(np.nan_to_num(metric()))


def _by_name(probabilities: np.ndarray, names: list[str]) -> dict[str, float]:
    return dict(zip(names, map(rounded, probabilities), strict=True))


def _split_labels(values: Any) -> list[Any]:
    """Returns the labels in a cell: a list, one label, or several separated by commas."""
    if isinstance(values, str):
        return [value.strip() for value in values.split(",") if value.strip()]
    if values is None:
        return []
    return list(values) if isinstance(values, list | tuple | np.ndarray) else [values]
