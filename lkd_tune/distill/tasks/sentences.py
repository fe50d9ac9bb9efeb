"""Scores of predictions: scikit-learn's and SciPy's, by the names that a space file uses."""

from __future__ import annotations

import warnings

import numpy as np

from lkd_tune.spec.settings import TaskSettings


def score_predictions(
    task: TaskSettings, outputs: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Returns all metrics of the task's kind; the task's own, `task.metric`, among them.

    Args:
        task: The task.
        outputs: Logits, shape (examples, classes), or predictions (examples, 1) in regression.
        labels: Class ids or numbers, shape (examples,).

    A correlation with constant predictions, which is not defined, counts as 0.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the undefined cases, which are settled below
        scores = _regression(outputs[:, 0], labels) if task.regression else _classes(
            outputs.argmax(-1), labels, outputs.shape[-1]
        )  # fmt: skip
    return {name: float(np.nan_to_num(value)) for name, value in scores.items()}


def _classes(predictions: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    scores = {
        "accuracy": accuracy_score(labels, predictions),
        "matthews": matthews_corrcoef(labels, predictions),
        "macro_f1": f1_score(labels, predictions, average="macro", zero_division=0),
    }
    # F1 of class 1, as in MRPC and QQP, is defined for two classes only.
    scores["f1"] = (
        f1_score(labels, predictions, zero_division=0) if classes == 2 else scores["macro_f1"]
    )
    return scores


def _regression(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    if len(labels) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": pearsonr(predictions, labels).statistic,
        "spearman": spearmanr(predictions, labels).statistic,
    }
