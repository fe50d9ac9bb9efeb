"""Where a sentence ends."""

import pytest

from lkd_tune.data.tasks.sentence_splitting import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained.", "Nobody came!", "Why?", "3 people asked."],
        ['"It rained." said no one.', "He left."],  # goes on in lower case
        ['He said: "It rained."', "“Nobody came.”", "(They slept.)", "Then left."],
        ["Dr. Who met Mr. J. R. Hartley in the U.S. Senate.", "It rained."],
        ["It was No. 1 again.", "No.", "He left."],
        ["It was I.", "He left."],
        ["It costs 3.50 at example.com today.", "Well..."],
        ["Wait...", "What?!", "No."],
        ["아침에 비가 왔다.", "아무도 오지 않았다."],  # a script without capitals
        ["no stop at the end"],
        ["Élan.", "Über alles.", "Ça va."],
    ],
)
def test_sentences_come_apart(sentences):
    assert split_sentences(" ".join(sentences)) == sentences
    assert split_sentences("  " + "  ".join(sentences) + "\n") == sentences


def test_chinese_and_japanese_need_no_space():
    sentences = ["下雨了。", "没有人来！", "「为什么？」"]
    assert split_sentences("".join(sentences)) == sentences


def test_a_line_break_ends_a_sentence():
    text = "A headline\n\nit rained in St.\nLouis\r\nThe end"
    assert split_sentences(text) == ["A headline", "it rained in St.", "Louis", "The end"]


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_nothing_has_no_sentence(text):
    assert split_sentences(text) == []


def test_no_letter_is_lost():
    text = "One. Two? (Three!) four... Five;six\nSeven Mr. X. 8"
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())
