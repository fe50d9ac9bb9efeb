"""Predictions for each row, for every kind of task; they agree with the scores."""

import numpy as np
import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.data.loading import label_names, load_split
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.evaluation.scoring import evaluate_model, predict_rows
from lkd_tune.models.loading import load_tokenizer
from tests.support.kinds_data import make_model, make_task


def _predicted(folder, kind, rows=24):
    task = make_task(folder / "data", kind, rows=rows)
    model = str(make_model(folder / "model", task))
    metrics, rows = predict_rows(model, task, "dev", cache=folder / "cache")
    assert metrics == evaluate_model(model, task, cache=folder / "cache")["dev"]
    return load_split(task, "dev", cache=folder / "cache"), metrics, rows


def test_a_class_and_its_probability(tmp_path):
    split, metrics, rows = _predicted(tmp_path, "classification")
    assert [row["row"] for row in rows] == list(range(1, 25))
    assert [row["text"] for row in rows] == split.text
    assert all("pair" not in row for row in rows)
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert right == pytest.approx(metrics["accuracy"])
    for row in rows:
        assert row["label"] in ("good", "bad")
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(row["probabilities"], key=row["probabilities"].get) == row["prediction"]


def test_a_number(tmp_path):
    split, metrics, rows = _predicted(tmp_path, "regression")
    assert [row["label"] for row in rows] == split.label
    found = np.corrcoef([row["prediction"] for row in rows], split.label)[0, 1]
    assert found == pytest.approx(metrics["pearson"], abs=1e-4)


def test_several_classes(tmp_path):
    _, metrics, rows = _predicted(tmp_path, "multi_label")
    alike = np.mean([row["label"] == row["prediction"] for row in rows])
    assert alike == pytest.approx(metrics["accuracy"])
    for row in rows:
        likely = {name for name, share in row["probabilities"].items() if share > 0.5}
        assert set(row["prediction"]) == likely


def test_a_tag_for_each_word(tmp_path):
    split, metrics, rows = _predicted(tmp_path, "tagging")
    pairs = [pair for row in rows for pair in zip(row["label"], row["prediction"], strict=True)]
    assert np.mean([a == b for a, b in pairs]) == pytest.approx(metrics["accuracy"])
    assert [len(row["prediction"]) for row in rows] == [len(words) for words in split.text]


def test_answers_the_likeliest_first(tmp_path):
    split, metrics, rows = _predicted(tmp_path, "question_answering")
    exact = np.mean([row["prediction"] in row["label"] for row in rows])
    assert exact == pytest.approx(metrics["exact_match"])
    for row, context in zip(rows, split.pair, strict=True):
        assert row["pair"] == context
        best = row["n_best"]
        assert best[0]["text"] == row["prediction"]
        assert len(best) == min(20, len({one["text"] for one in best}))
        shares = [one["probability"] for one in best]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        for one in best:
            assert context.startswith(one["text"], one["start"])


def test_a_summary_and_its_sentences(tmp_path):
    split, _, rows = _predicted(tmp_path, "extractive_summary")
    for row, document in zip(rows, split.text, strict=True):
        assert row["text"] == document
        assert row["prediction"] == " ".join(document[number - 1] for number in row["sentences"])


def test_raw_text_has_none(tmp_path):
    with pytest.raises(SpecError, match="masked_lm has no predictions for rows of the data"):
        predict_rows("model", make_task(tmp_path, "masked_lm", rows=8), "dev", cache=tmp_path)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("classification", "matthews"),
        ("multi_label", "macro_f1"),
        ("tagging", "f1"),
        ("tagging", "accuracy"),
        ("question_answering", "f1"),
        ("extractive_summary", "rouge2"),
    ],
)
def test_rows_that_are_drawn_again_are_scored_as_if_they_were_all(tmp_path, kind, metric):
    task = make_task(tmp_path / "data", kind, rows=12)
    tokens = load_tokens(
        task, "dev", load_tokenizer(str(make_model(tmp_path / "model", task))), cache=tmp_path
    )
    own = kind_of(task)
    width = len(label_names(task, cache=tmp_path) or "ab")
    size = int(tokens.starts[-1]) if own.per_token else len(tokens)
    outputs = np.random.default_rng(0).normal(size=(size, width)).astype(np.float32)
    every = np.arange(12)
    found = own.bootstrap_metric(
        outputs, tokens, metric, np.stack([every, every[::-1], every // 6])
    )
    assert found[:2] == pytest.approx([own.score(outputs, tokens)[metric]] * 2)
    ones = own.bootstrap_metric(outputs, tokens, metric, np.array([[0], [1]]))
    twice = own.bootstrap_metric(outputs, tokens, metric, np.array([[0, 0], [1, 1]]))
    assert ones == pytest.approx(twice)
