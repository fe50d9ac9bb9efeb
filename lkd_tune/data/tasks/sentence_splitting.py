"""Splits a text into sentences by rules, without a model or a download."""

from __future__ import annotations

import re

# Marks that end a sentence, with closing quotes and brackets and the white space behind. A line
# break ends one too: in news it follows headlines and paragraphs. Chinese and Japanese marks need
# no white space.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』”’）]*\s*|\n\s*")

# After these a full stop does not end a sentence, because a name follows.
_TITLES = frozenset({
    "capt", "col", "dr", "gen", "gov", "hon", "lt", "maj", "mr", "mrs", "ms", "mt", "prof", "rep",
    "rev", "sen", "sgt", "st", "vs",
})  # fmt: skip


def split_sentences(text: str) -> list[str]:
    """Returns the sentences of a text, without white space around them; [] if there is none.

    The rules prefer too few sentences to too many. A mark does not end a sentence before a lower
    case letter, or after a title, an initial, an abbreviation with inner full stops (U.S.) or a
    "No." with a number behind it.
    """
    sentences, begin = [], 0
    for end in _END.finditer(text):
        before, after = text[begin : end.end()], text[end.end() : end.end() + 1]
        if "\n" in end[0] or not _continues(before, after):
            sentences.append(before.strip())
            begin = end.end()
    return [sentence for sentence in (*sentences, text[begin:].strip()) if sentence]


def _continues(before: str, after: str) -> bool:
    """Returns whether a sentence continues after a mark.

    Args:
        before: The sentence up to and including the mark.
        after: The character behind it, '' at the end of the text.
    """
    if after.islower():
        return True
    word = before.split()[-1].lstrip("\"'“‘«([")
    if not word.endswith(".") or word.endswith(".."):
        return False
    word = word[:-1]
    if word.lower() == "no" and after.isdigit():
        return True
    initial = len(word) == 1 and word.isupper() and word != "I"
    return initial or "." in word or word.lower() in _TITLES
