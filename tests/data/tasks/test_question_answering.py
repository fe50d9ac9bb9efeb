"""Answers by SQuAD's own definition, windows over long contexts, and accents."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lkd_tune.config.settings.losses import Divergence, LogitLoss
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.question_answering import predict_answers, score_answers
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Split
from lkd_tune.models.loading import load_tokenizer
from tests.support.families import make_classifier
from tests.support.tokenizers_of import byte_bpe, unigram, wordpiece

CONTEXT = "the dog sees a cat the cats see good dogs not very bad dogs see the dog"


@pytest.mark.parametrize(
    ("found", "right", "exact", "f1"),
    [
        ("The Beatles!", ["beatles"], 1, 1),  # case, article and punctuation are of no weight
        ("in 1990", ["1990"], 0, 2 / 3),
        ("a dog", ["cat", "the dog"], 1, 1),  # the best of several right ones
        ("U.S.", ["US"], 1, 1),
        ("twenty-one", ["twenty one"], 0, 0),  # punctuation goes without a space
        ("Málaga", ["Malaga"], 0, 0),  # accents count
        ("an  apple pie", ["apple   pie"], 1, 1),
        ("dog dog", ["dog"], 0, 2 / 3),  # repeated words count once each
        ("", [], 1, 1),
        ("dog", [], 0, 0),
        ("", ["dog"], 0, 0),
        ("a", ["the"], 1, 1),  # nothing but articles: by SQuAD 2.0's script; 0 by that of 1.1
    ],
)
def test_scores_are_squad_s(found, right, exact, f1):
    scores = score_answers([found], [right])
    assert scores == pytest.approx({"exact_match": exact, "f1": f1})


def _task(folder, context, answers, **more):
    qas = [
        {"id": str(i), "question": "good dog", "answers": [{"text": t, "answer_start": at}]}
        if t
        else {"id": str(i), "question": "good dog", "answers": []}
        for i, (t, at) in enumerate(answers)
    ]
    paragraphs = [{"context": context, "qas": qas}]
    path = folder / "squad.json"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    settings = {"max_length": 14, "stride": 4, **more}
    return TaskSettings(
        name="own", kind="question_answering", train=str(path), dev=str(path), **settings
    )


def _certain(tokens):
    """Returns logits that say what the labels do, strongest where the answer is."""
    outputs = np.zeros((int(tokens.starts[-1]), 2), np.float32)
    for row, (start, end) in enumerate(tokens.labels):
        sure = 5.0 if start else 1.0
        outputs[tokens.starts[row] + start, 0] = sure
        outputs[tokens.starts[row] + end, 1] = sure
    return outputs


def test_an_answer_is_found_in_any_window_of_a_long_context(tmp_path):
    context = CONTEXT
    places = {"dog sees a": 4, "very bad": context.index("very"), "dog": len(context) - 3}
    answers = list(places.items())
    task = _task(tmp_path, context, answers)
    tokens = load_tokens(
        task, "train", load_tokenizer(make_classifier(tmp_path / "t")), cache=tmp_path / "cache"
    )
    assert len(tokens) > 2 * len(answers)
    assert tokens.lengths.max() <= 14
    # A window without the whole answer points at its first token.
    assert (tokens.labels == 0).all(-1).any()
    kind = kind_of(task)
    assert kind.score(_certain(tokens), tokens) == {"f1": 1.0, "exact_match": 1.0}
    shuffled = np.roll(_certain(tokens), 2, axis=0)
    assert kind.score(shuffled, tokens)["exact_match"] < 1


def test_every_token_of_the_context_is_in_a_window(tmp_path):
    context = CONTEXT
    task = _task(tmp_path, context, [("dog", 4)])
    tokens = load_tokens(
        task, "train", load_tokenizer(make_classifier(tmp_path / "t")), cache=tmp_path / "cache"
    )
    seen = {tuple(place) for place in tokens.extra("offsets").tolist() if place[0] >= 0}
    assert [context[start:end] for start, end in sorted(seen)] == CONTEXT.split()


@pytest.mark.parametrize("make", [wordpiece, byte_bpe, unigram])
@pytest.mark.parametrize(("longest", "stride"), [(14, 4), (32, 23), (32, 0)])
def test_a_question_is_cut_where_it_would_leave_no_room(tmp_path, make, longest, stride):
    tokenizer = make([CONTEXT, "good dogs", "é 🐕 the"] * 4, 300)
    task = _task(tmp_path, CONTEXT, [("dog", 4)], max_length=longest, stride=stride)
    words = ["good dogs 🐕", "the", *(["🐕 très"] * 40)]
    questions = [" ".join(words[:count]) for count in (1, 2, 3, 5, 8, 40)]
    answers = {"text": ["dog"], "answer_start": [4]}
    split = Split(questions, [CONTEXT] * len(questions), [answers] * len(questions))
    encoded = kind_of(task).encode(task, split, tokenizer, None)
    assert max(map(len, encoded.ids)) <= longest
    room = (longest - stride - tokenizer.num_special_tokens_to_add(pair=True)) // 2
    places = np.split(encoded.extras["offsets"], np.cumsum([len(ids) for ids in encoded.ids])[:-1])
    for number, question in enumerate(questions):
        rows = np.flatnonzero(encoded.extras["questions"] == number)
        for row in rows:
            own = int((places[row][:, 0] < 0).sum()) - tokenizer.num_special_tokens_to_add(True)
            whole = tokenizer(question, add_special_tokens=False)["input_ids"]
            assert own == len(whole) or room - 3 <= own <= room  # a 🐕 may be four tokens
            if own == len(whole):
                kept = [token for token in encoded.ids[row] if token in whole]
                assert kept[:own] == whole
        seen = {character for row in rows for a, b in places[row] for character in range(a, b)}
        assert {at for at, letter in enumerate(CONTEXT) if letter != " "} <= seen


def test_any_of_several_answers_is_right_and_the_first_is_taught(tmp_path):
    task = _task(tmp_path, "the dog sees a cat", [])
    path = tmp_path / "squad.json"
    answers = [{"text": "a cat", "answer_start": 13}, {"text": "dog", "answer_start": 4}]
    qas = [{"id": "0", "question": "good dog", "answers": answers}]
    paragraphs = [{"context": "the dog sees a cat", "qas": qas}]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    tokens = load_tokens(
        task, "train", load_tokenizer(make_classifier(tmp_path / "t")), cache=tmp_path / "cache"
    )
    assert tokens.labels.tolist() == [[7, 8]]  # [CLS] good dog [SEP] the dog sees a cat
    outputs = np.zeros((int(tokens.starts[-1]), 2), np.float32)
    outputs[5] = 1
    assert kind_of(task).score(outputs, tokens) == {"f1": 1, "exact_match": 1}


def test_text_comes_out_as_it_was_written(tmp_path):
    context = "Él vive en Málaga , España"
    task = _task(tmp_path, context, [("Málaga", 11)])
    tokens = load_tokens(
        task, "train", load_tokenizer(make_classifier(tmp_path / "t")), cache=tmp_path / "cache"
    )
    assert predict_answers(_certain(tokens), tokens, [context], [["Málaga"]]) == ["Málaga"]


def test_a_question_without_answer_gets_none(tmp_path):
    task = _task(tmp_path, "the dog sees", [("dog", 4), ("", 0)])
    tokens = load_tokens(
        task, "train", load_tokenizer(make_classifier(tmp_path / "t")), cache=tmp_path / "cache"
    )
    outputs = _certain(tokens)
    found = predict_answers(outputs, tokens, ["the dog sees"] * 2, [["dog"], []])
    assert found == ["dog", ""]
    # Where each question has an answer, each gets one.
    assert all(predict_answers(outputs, tokens, ["the dog sees"] * 2, [["dog"], ["dog"]]))


def test_padding_takes_no_part_in_the_loss(tmp_path):
    task = _task(tmp_path, CONTEXT, [("dog", 4)])
    tokens = load_tokens(
        task, "train", load_tokenizer(make_classifier(tmp_path / "t")), cache=tmp_path / "cache"
    )
    kind = kind_of(task)
    batch = tokens.batch(np.arange(len(tokens)), torch.device("cpu"))
    assert not batch.mask.all()
    torch.manual_seed(0)
    logits = torch.randn(*batch.ids.shape, 2)
    noise = torch.where(batch.mask[..., None], logits, torch.full_like(logits, 50.0))
    rows, same = kind.loss_rows(logits, batch), kind.loss_rows(noise, batch)
    labels = kind.loss_labels(batch)
    found, expected = (kind.hard_label_loss(each, labels) for each in (rows, same))
    torch.testing.assert_close(found, expected)
    teacher = kind.loss_rows(torch.randn_like(logits), batch)
    wider = [F.pad(each, (0, 8), value=each.min().item()) for each in (rows, teacher)]
    for divergence in get_args(Divergence):
        settings = LogitLoss(temperature=2.0, divergence=divergence)
        own = rows.clone().requires_grad_()
        found = kind.soft_label_loss(own, teacher, settings).total
        torch.testing.assert_close(found, kind.soft_label_loss(same, teacher, settings).total)
        torch.testing.assert_close(found, kind.soft_label_loss(*wider, settings).total)
        found.backward()
        assert torch.isfinite(own.grad).all()
        assert (own.grad[rows < -1e8] == 0).all()
