"""Metrics of sentences against values counted by hand, so that none is taken for another."""

import numpy as np
import pytest

from lkd_tune.data.tasks.classification import Classification, MultiLabel, Regression
from lkd_tune.data.types import Tokens


def _tokens(labels):
    labels = np.array(labels)
    nothing = np.zeros(0, np.int32)
    return Tokens(nothing, nothing, np.zeros(len(labels) + 1, np.int64), labels, 0, "key")


def test_two_classes():
    # Of class 1: 2 found, 1 missed, 1 too many; so 4 right ones of class 0.
    predicted = np.eye(2)[[1, 1, 0, 1, 0, 0, 0, 0]]
    scores = Classification().score(predicted, _tokens([1, 1, 1, 0, 0, 0, 0, 0]))
    assert scores == pytest.approx(
        {
            "accuracy": 6 / 8,
            "f1": 4 / 6,
            "macro_f1": (4 / 6 + 8 / 10) / 2,
            "matthews": (2 * 4 - 1 * 1) / np.sqrt(3 * 3 * 5 * 5),
        }
    )


def test_three_classes():
    scores = Classification().score(np.eye(3)[[0, 0, 1, 1, 2, 2]], _tokens([0, 0, 0, 1, 1, 2]))
    macro = (4 / 5 + 1 / 2 + 2 / 3) / 3
    # Gorodkin 2004: 4 right of 6; of the classes 3, 2 and 1, each predicted twice.
    matthews = (4 * 6 - 12) / np.sqrt((36 - 12) * (36 - 14))
    assert scores == pytest.approx(
        {"accuracy": 4 / 6, "f1": macro, "macro_f1": macro, "matthews": matthews}
    )


def test_several_classes():
    labels = [[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]]
    predicted = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]])
    scores = MultiLabel().score(2.0 * predicted - 1, _tokens(labels))
    # Class 0 is all right, of the others nothing is; 3 decisions for a class are right, 2 are not,
    # 2 are lacking; one row is all right.
    assert scores == pytest.approx({"macro_f1": 1 / 3, "micro_f1": 6 / 10, "accuracy": 1 / 4})


def test_numbers():
    scores = Regression().score(np.array([[1], [2], [3], [10]]), _tokens([1.0, 3, 2, 4]))
    # Two neighbouring ranks are exchanged; sums of products 13, of squares 50 and 5.
    assert scores == pytest.approx({"spearman": 1 - 6 * 2 / (4 * 15), "pearson": 13 / np.sqrt(250)})


@pytest.mark.parametrize("same", [[[2], [2], [2]], [[2]]])
def test_constant_numbers_have_no_correlation(same):
    scores = Regression().score(np.array(same), _tokens(np.arange(len(same), dtype=float)))
    assert scores == {"spearman": 0.0, "pearson": 0.0}
