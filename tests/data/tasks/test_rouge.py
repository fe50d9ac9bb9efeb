"""ROUGE against values counted by hand; the greedy choice against a plain one."""

import random

import pytest

from lkd_tune.data.tasks.rouge import best_sentences, rouge


@pytest.mark.parametrize(
    ("found", "right", "one", "two", "longest"),
    [
        # words 2 of 3 and 4, pairs 1 of 2 and 3, common subsequence "the cat"
        ("the cat sat", "the cat lay down", 4 / 7, 2 / 5, 4 / 7),
        ("b a", "a b", 1, 0, 1 / 2),  # only the order differs
        ("a a a", "a b", 2 / 5, 0, 2 / 5),  # a word counts as often as the other has it
        ("The-Cat!", "the cat", 1, 1, 1),  # case and punctuation are of no weight
        ("runs", "run", 0, 0, 0),  # no stemming
        ("고양이가 앉았다", "고양이가 잔다", 1 / 2, 0, 1 / 2),  # any script
        ("café", "caf", 0, 0, 0),
        ("a", "a", 1, 0, 1),  # one word has no pairs
        ("", "a", 0, 0, 0),
    ],
)
def test_scores_are_those_counted_by_hand(found, right, one, two, longest):
    scores = {name: each[0] for name, each in rouge([found], [right]).items()}
    assert scores == pytest.approx({"rouge1": one, "rouge2": two, "rougeL": longest})


def test_each_summary_has_its_score():
    scores = rouge(["a b c d e f", "x"], ["a b c d e f", "y"])
    for name in ("rouge1", "rouge2", "rougeL"):
        assert scores[name].tolist() == [1, 0]


def _plainly(sentences, summary, most):
    """Returns the greedy choice with every candidate scored as a text."""
    chosen, reached = [], 0.0
    while len(chosen) < most:
        scores = {}
        for number in set(range(len(sentences))) - set(chosen):
            text = " ".join(sentences[i] for i in sorted([*chosen, number]))
            found = rouge([text], [summary])
            scores[number] = float(found["rouge1"][0] + found["rouge2"][0])
        best = min(scores, key=lambda number: (-round(scores[number], 6), number), default=None)
        if best is None or scores[best] <= reached + 1e-6:
            break
        chosen, reached = sorted([*chosen, best]), scores[best]
    return chosen


def test_sentences_are_chosen_greedily():
    rng = random.Random(0)
    lengths = set()
    for _ in range(60):
        sentences = [" ".join(rng.choices("abcdef", k=rng.randint(1, 4))) for _ in range(5)]
        summary = " ".join(rng.choices("abcdefgh", k=rng.randint(2, 8)))
        most = rng.randint(1, 4)
        chosen = best_sentences(sentences, summary, most)
        assert chosen == _plainly(sentences, summary, most)
        lengths.add((len(chosen), most))
    assert {(1, 3), (2, 2)} <= lengths  # by no gain, and by number


@pytest.mark.parametrize(
    ("sentences", "summary", "most", "chosen"),
    [
        (["x y", "c d", "a b"], "a b. c d.", 3, [1, 2]),  # in the document's order
        (["a b", "a b", "c d"], "a b c d", 3, [0, 2]),  # the first of equals, and not again
        (["a b c", "x"], "a b c", 3, [0]),  # nothing more to gain
        (["a b", "c d", "e f"], "a b c d e f", 2, [0, 1]),
        (["x", "y"], "a b", 3, []),
        (["a b", "...", "c d"], "a b c d", 3, [0, 2]),  # without words, without gain
    ],
)
def test_what_a_choice_ends_with(sentences, summary, most, chosen):
    assert best_sentences(sentences, summary, most) == chosen
