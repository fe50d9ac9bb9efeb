"""Which columns of a file hold the text, the second text of a pair, and the label."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lkd_tune.config.errors import Problem, SpecError, did_you_mean
from lkd_tune.drafts.sample import Sample

# The usual names, the more telling ones first.
_TEXT = (
    "text", "sentence", "sentence1", "premise", "question1", "question", "tokens", "words",
    "document", "article", "review", "content", "comment", "tweet", "utterance", "query", "message",
    "body", "abstract", "title", "text_a", "text1",
)  # fmt: skip
_LABEL = (
    "label", "labels", "gold_label", "class", "category", "target", "sentiment", "stars", "rating",
    "score", "intent", "topic", "emotion", "ner_tags", "tags", "answers", "summary", "highlights",
    "is_duplicate", "y",
)  # fmt: skip
_PAIRS = (
    ("premise", "hypothesis"), ("question", "context"), ("question", "sentence"),
    ("question", "passage"), ("query", "passage"), ("query", "document"), ("query", "text"),
    ("text_a", "text_b"),
)  # fmt: skip
_ID = re.compile(r"(.*_)?(id|idx|index|guid|uid|uuid)", re.IGNORECASE)
# A column without a telling name is a label if it has no more different values than this.
_MAX_CLASSES, _MAX_CLASS_SHARE = 50, 0.1


@dataclass(frozen=True)
class Roles:
    """The columns that a task needs.

    Attributes:
        text: The text.
        pair: The second text of a pair, None if there is none.
        label: The label, None if there is none.
        why: Why each was chosen, by role.
    """

    text: str
    pair: str | None
    label: str | None
    why: dict[str, str]


def find_roles(
    sample: Sample, text: str | None = None, pair: str | None = None, label: str | None = None
) -> Roles:
    """Returns the columns of a file by their role; what is not given is guessed.

    Raises:
        SpecError: If the file has no such column, none that may be text, or if several columns
            leave open which is the label.
    """
    given = {"--text": text, "--pair": pair, "--label": label}
    for option, name in given.items():
        if name is not None and name not in sample.columns:
            near = did_you_mean(name, sample.columns)
            message = f"{sample.file} has no column {name!r}{near}; it has {_listed(sample)}"
            raise SpecError(Problem(option, "", message))
    why = {option.removeprefix("--"): "as given" for option, name in given.items() if name}
    taken = {name for name in given.values() if name}
    if text is None:
        text, why["text"] = _find_text(sample, taken)
        taken.add(text)
    if pair is None and (pair := _find_pair(sample, text, taken)) is not None:
        why["pair"] = f"as its name goes with {text}"
        taken.add(pair)
    if label is None:
        found = _find_label(sample, taken)
        if found is not None:
            label, why["label"] = found
        elif others := [name for name in sample.columns if name not in taken]:
            message = (
                f"none of the columns {', '.join(others)} looks like a label; name it with --label"
            )
            raise SpecError(Problem(str(sample.file), "", message))
    return Roles(text, pair, label, why)


def _find_text(sample: Sample, taken: set[str]) -> tuple[str, str]:
    lengths = {
        name: length
        for name in sample.columns
        if name not in taken and (length := mean_length(sample.values(name))) > 0
    }
    if not lengths:
        message = f"no column holds text; it has {_listed(sample)}; name one with --text"
        raise SpecError(Problem(str(sample.file), "", message))
    for first, second in _PAIRS:
        if first in lengths and second in lengths:
            return first, "by its name"
    longest = max(lengths, key=lambda name: lengths[name])
    for name in _TEXT:
        # Not a title beside an article.
        for column in lengths:
            if column.lower() == name and lengths[column] >= lengths[longest] / 4:
                return column, "by its name"
    return longest, "as its texts are the longest"


def _find_pair(sample: Sample, text: str, taken: set[str]) -> str | None:
    names = [second for first, second in _PAIRS if first == text.lower()]
    if numbered := re.fullmatch(r"(.*?)(_?)1", text):
        names.append(f"{numbered[1]}{numbered[2]}2".lower())
    lowered = {name.lower(): name for name in sample.columns if name not in taken}
    found = (lowered[name] for name in names if name in lowered)
    return next((name for name in found if mean_length(sample.values(name)) > 0), None)


def _find_label(sample: Sample, taken: set[str]) -> tuple[str, str] | None:
    open_ones = [name for name in sample.columns if name not in taken]
    lowered = {name.lower(): name for name in reversed(open_ones)}
    for name in _LABEL:
        if name in lowered:
            return lowered[name], "by its name"
    most = min(_MAX_CLASSES, max(2, _MAX_CLASS_SHARE * len(sample.rows)))
    few: list[tuple[int, str]] = []
    for name in open_ones:
        different = len({str(value) for value in sample.values(name)})
        if not _ID.fullmatch(name) and 1 < different <= most:
            few.append((different, name))
    if len(few) == 1:
        return few[0][1], f"as it has {few[0][0]} different values"
    return None


def mean_length(values: list[Any]) -> float:
    """Returns the mean number of characters of a column of texts or lists of words; else 0.

    A column whose values are numbers or have hardly any spaces or letters is no text.
    """
    texts = [" ".join(value) if _is_words(value) else value for value in values]
    found = [text for text in texts if isinstance(text, str) and text.strip()]
    if len(found) < len(values) / 2:
        return 0
    worded = sum(bool(re.search(r"[^\W\d_]{2}", text)) for text in found)
    if worded < len(found) / 2:
        return 0
    return sum(map(len, found)) / len(found)


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def _listed(sample: Sample) -> str:
    return ", ".join(sample.columns)
