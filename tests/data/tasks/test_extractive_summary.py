"""Summaries through tokens and back: what is seen, what is chosen, what it is worth."""

import json

import numpy as np
import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import count_labels, label_names, load_split
from lkd_tune.data.tasks.extractive_summary import choose_sentences
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import IGNORED
from lkd_tune.models.loading import load_tokenizer
from tests.support.families import make_classifier
from tests.support.tokenizers_of import KINDS

DOCUMENT = ["The dog sees.", "Very good cats see.", "A bad cat.", "The dogs see not."]
SUMMARY = "very good cats see the dogs not"


def _task(folder, *rows, **more):
    rows = rows or ((DOCUMENT, SUMMARY),)
    path = folder / "news.jsonl"
    lines = [json.dumps({"document": text, "summary": summary}) for text, summary in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    settings = {"max_length": 40, "sentences": 2, "train": str(path), "dev": str(path), **more}
    return TaskSettings(**{"name": "own", "kind": "extractive_summary", **settings})


def _tokens(folder, task, tokenizer=None):
    tokenizer = tokenizer or load_tokenizer(make_classifier(folder / "t"))
    return load_tokens(task, "train", tokenizer, cache=folder / "cache"), tokenizer


def _outputs(tokens, *likeliest):
    """Returns logits by which some sentences are likely, of each document, the first most."""
    outputs = np.zeros((len(tokens.ids), 2), np.float32)
    for row, numbers in enumerate(likeliest):
        at = slice(tokens.starts[row], tokens.starts[row + 1])
        for rank, number in enumerate(numbers):
            outputs[at][tokens.extra("sentences")[at] == number, 1] = 9 - rank
    return outputs


def test_each_sentence_stands_between_its_own_marks(tmp_path):
    tokens, tokenizer = _tokens(tmp_path, _task(tmp_path))
    text = " ".join(f"[CLS] {sentence} [SEP]" for sentence in DOCUMENT)
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokens.ids.tolist() == expected
    begins = np.flatnonzero(tokens.ids == tokenizer.cls_token_id)
    assert tokens.labels[begins].tolist() == [0, 1, 0, 1]
    assert tokens.extra("sentences")[begins].tolist() == [0, 1, 2, 3]
    assert (np.delete(tokens.labels, begins) == IGNORED).all()
    assert (np.delete(tokens.extra("sentences"), begins) == -1).all()
    assert not tokens.types.any()


def test_the_loss_is_of_the_sentences_alone(tmp_path):
    task = _task(tmp_path, (DOCUMENT, SUMMARY), (DOCUMENT[:1], "dog"))
    tokens, _ = _tokens(tmp_path, task)
    kind, batch = kind_of(task), tokens.batch(np.array([0, 1]), torch.device("cpu"))
    logits = torch.arange(batch.ids.numel() * 2.0).reshape(*batch.ids.shape, 2)
    assert kind.loss_rows(logits, batch).shape == (5, 2)
    assert kind.loss_labels(batch).tolist() == [0, 1, 0, 1, 1]
    assert kind.count_loss_rows(batch) == 5


@pytest.mark.parametrize(
    ("longest", "seen"),
    # The sentences have 6, 7, 6 and 7 tokens, their marks counted.
    [(40, 4), (26, 4), (25, 3), (19, 3), (18, 2), (13, 2), (12, 1), (6, 1), (5, 1), (4, 1)],
)
def test_whole_sentences_are_seen_but_of_the_first(tmp_path, longest, seen):
    task = _task(tmp_path, max_length=longest)
    tokens, tokenizer = _tokens(tmp_path, task)
    assert (tokens.labels != IGNORED).sum() == seen
    assert tokens.lengths[0] <= longest
    assert tokens.ids[-1] == tokenizer.sep_token_id
    if longest in (4, 5):
        assert tokens.lengths[0] == longest


def test_only_what_is_seen_is_chosen_for_training(tmp_path):
    tokens, _ = _tokens(tmp_path, _task(tmp_path, max_length=13))
    assert tokens.labels[tokens.labels != IGNORED].tolist() == [0, 1]


def test_a_few_empty_documents_and_summaries_teach_nothing_and_score_nothing(tmp_path):
    rows = [(DOCUMENT, SUMMARY)] * 98
    task = _task(tmp_path, *rows, (" ", SUMMARY), (DOCUMENT, "..."))
    tokens, _ = _tokens(tmp_path, task)
    assert tokens.lengths[98] == 2
    labels = [tokens.labels[tokens.starts[row] : tokens.starts[row + 1]] for row in (0, 98, 99)]
    assert [int((label != IGNORED).sum()) for label in labels] == [4, 0, 0]
    outputs = _outputs(tokens, *[[1, 3]] * 100)
    each = kind_of(task).bootstrap_metric(outputs, tokens, "rouge1", np.arange(100)[:, None])
    assert each[0] > 0.9
    assert each[98:].tolist() == [0, 0]
    with pytest.raises(SpecError, match=r"row 97, .* no sentence \(3 of 99 rows; 1% may be empty"):
        load_split(_task(tmp_path, *rows[:96], *[("", SUMMARY)] * 3), "train", cache=tmp_path)


def test_the_likeliest_sentences_are_scored_in_the_document_s_order(tmp_path):
    task = _task(tmp_path, (DOCUMENT, SUMMARY), (["The cat sees."], "the cat"))
    tokens, _ = _tokens(tmp_path, task)
    outputs = _outputs(tokens, [3, 1], [])
    assert choose_sentences(outputs, tokens, 2) == [[1, 3], [0]]
    scores = kind_of(task).score(outputs, tokens)
    # "very good cats see the dogs see not" has 7 of 8 words and all 7 of the summary; pairs 5 of 7
    # and all but "dogs not" of 6. "the cat sees": 2 of 3 words and 1 of 2 pairs.
    assert scores["rouge1"] == pytest.approx((14 / 15 + 4 / 5) / 2)
    assert scores["rouge2"] == pytest.approx((10 / 13 + 2 / 3) / 2)
    # "the dog sees very good cats see": 5 of 7 words, 3 of 6 pairs
    assert scores["lead_rouge1"] == pytest.approx((10 / 14 + 4 / 5) / 2)
    assert scores["lead_rouge2"] == pytest.approx((6 / 12 + 2 / 3) / 2)
    assert set(scores) == {
        f"{of}{name}" for of in ("", "lead_") for name in ("rouge1", "rouge2", "rougeL")
    }


def test_the_first_sentences_count_also_where_they_are_not_seen(tmp_path):
    task = _task(tmp_path, max_length=6)
    tokens, _ = _tokens(tmp_path, task)
    scores = kind_of(task).score(_outputs(tokens, [0]), tokens)
    assert scores["lead_rouge1"] == pytest.approx(10 / 14)
    assert scores["rouge1"] < scores["lead_rouge1"]


def test_a_document_may_be_a_text_and_a_summary_a_list(tmp_path):
    task = _task(tmp_path, (" ".join(DOCUMENT), ["Very good cats see.", "Not the dogs."]))
    split = load_split(task, "train", cache=tmp_path / "cache")
    assert split.text == [DOCUMENT]
    assert split.label == ["Very good cats see.\nNot the dogs."]
    blank = _task(tmp_path, (["", " The dog sees. ", " "], SUMMARY))
    assert load_split(blank, "train", cache=tmp_path / "c").text == [["The dog sees."]]


def test_a_sentence_is_in_or_out(tmp_path):
    task = _task(tmp_path)
    assert label_names(task, cache=tmp_path / "cache") == ["out", "in"]
    assert count_labels(task, cache=tmp_path / "cache") == 2


def test_a_known_task_takes_local_files_in_its_own_columns(tmp_path):
    path = tmp_path / "cnn.csv"
    path.write_text('article,highlights,id\n"It rained. He left.","It rained .\nA lot ."," 1"\n')
    task = TaskSettings(name="cnn_dailymail", train=str(path), dev=str(path))
    assert (task.kind, task.max_length, task.sentences) == ("extractive_summary", 512, 3)
    split = load_split(task, "train", cache=tmp_path / "cache")
    assert split.text == [["It rained.", "He left."]]


@pytest.mark.parametrize("make", KINDS.values())
def test_every_kind_of_tokenizer_marks_sentences_with_its_own_tokens(tmp_path, make):
    tokenizer = make([" ".join(DOCUMENT)] * 4, 300)
    tokens, _ = _tokens(tmp_path, _task(tmp_path, max_length=60), tokenizer)
    begins, ends = (
        np.flatnonzero(tokens.ids == mark)
        for mark in (tokenizer.cls_token_id, tokenizer.sep_token_id)
    )
    assert np.flatnonzero(tokens.labels != IGNORED).tolist() == begins.tolist()
    assert [
        tokenizer.decode(tokens.ids[begin + 1 : end]).strip()
        for begin, end in zip(begins, ends, strict=True)
    ] == DOCUMENT
