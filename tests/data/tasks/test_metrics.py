"""Metrics of whole texts against values counted by hand; each kind computes those it lists."""

from typing import get_args

import numpy as np
import pytest

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.tasks.classification import Classification, MultiLabel, Regression
from lkd_tune.data.tasks.registry import TASK_KINDS
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.models.from_scratch import build_word_tokenizer
from tests.support.kinds_data import make_task
from tests.support.tiny import BAD, FILLERS, GOOD


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_computes_the_metrics_that_it_lists(kind, tmp_path):
    task = make_task(tmp_path / "data", kind, rows=8)
    tokenizer = build_word_tokenizer(sorted({*GOOD, *BAD, *FILLERS}), 40)
    tokens = load_tokens(task, "dev", tokenizer, cache=tmp_path)
    rows = int(tokens.starts[-1]) if TASK_KINDS[kind].per_token else len(tokens)
    # Three columns: the classes, or what masked_lm scores of each block.
    outputs = np.ones((rows, TASK_KINDS[kind].num_outputs or 3), np.float32)
    found = TASK_KINDS[kind].score(outputs, tokens)
    assert set(found) == {*KINDS[kind].metrics, *KINDS[kind].reported}
    assert not {*KINDS[kind].metrics} & {*KINDS[kind].reported}


def test_settings_and_code_know_the_same_kinds_and_metrics():
    assert list(TASK_KINDS) == list(KINDS)
    fields = TaskSettings.model_fields
    assert set(get_args(fields["kind"].annotation)) == set(KINDS)
    allowed = {metric for kind in KINDS.values() for metric in kind.metrics}
    assert set(get_args(fields["metric"].annotation)) == allowed
