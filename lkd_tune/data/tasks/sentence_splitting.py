"""A text cut into its sentences, by rules: the same everywhere, without a model or a download."""

from __future__ import annotations

import re

# Marks that end a sentence, with what closes around them and the white space behind. A line break
# ends one too: in news it stands after headlines and paragraphs. Marks of Chinese and Japanese
# need no white space.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』”’）]*\s*|\n\s*")

# After these a full stop ends no sentence: a name follows.
_TITLES = frozenset({
    "capt", "col", "dr", "gen", "gov", "hon", "lt", "maj", "mr", "mrs", "ms", "mt", "prof", "rep",
    "rev", "sen", "sgt", "st", "vs",
})  # fmt: skip


def split_sentences(text: str) -> list[str]:
    """Returns the sentences of a text, without white space around them; [] if there is none.

    Rather too few than too many: what goes on in lower case, or follows a title, an initial, an
    abbreviation with inner full stops (U.S.) or a number's (No. 1), is one sentence.
    """
    sentences, begin = [], 0
    for end in _END.finditer(text):
        if "\n" in end[0] or not _goes_on(text[begin : end.end()], text[end.end() : end.end() + 1]):
            sentences.append(text[begin : end.end()].strip())
            begin = end.end()
    return [sentence for sentence in (*sentences, text[begin:].strip()) if sentence]


def _goes_on(before: str, after: str) -> bool:
    """Returns whether a mark does not end its sentence.

    Args:
        before: The sentence up to the mark, with it.
        after: The character that follows, '' at the end of the text.
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
