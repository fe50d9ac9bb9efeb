"""A tag for each word, such as the names in a sentence (BIO tags)."""

from __future__ import annotations

import re
from operator import eq
from typing import Any

import numpy as np
from typing_extensions import override

from lkd_tune.config.errors import Problem
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.base import LabelledTokens, are_numbered, class_id, classes_in, row_error
from lkd_tune.data.types import IGNORED, Encoded, Split, Tokens

_OUTSIDE = "O"
# Outside, or what begins, continues, ends or alone is an entity: all that seqeval knows.
_OF_ENTITIES = re.compile("O|[BIES](-.*)?")


class Tagging(LabelledTokens):
    """A tag for each word; the first token of a word stands for it."""

    name = "tagging"
    per_token = True
    token_labels = True

    @override
    def class_names(self, raw: list[Any], where: str, column: str) -> list[str]:
        rows = enumerate(_lists(raw, "tags", where, column), 1)
        names = classes_in(((row, tag) for row, tags in rows for tag in tags), where, column)
        # Outside all names first, as is the custom.
        return sorted(names, key=lambda tag: tag != _OUTSIDE)

    @override
    def metric_problem(self, task: TaskSettings, names: list[str]) -> Problem | None:
        others = _of_no_entity(names)
        if task.metric == "accuracy" or not others:
            return None
        message = (
            f"{task.metric} is of entities, whose tags are O, B-… and I-… (or E-… and S-…), not "
            f"{', '.join(others[:5])}; use accuracy, or write the tags so"
        )
        return Problem("", "task.metric", message)

    @override
    def read_texts(self, raw: list[Any], where: str, column: str) -> list[list[str]]:
        for row, words in enumerate(_lists(raw, "words", where, column), 1):
            for word in words:
                if not isinstance(word, str):
                    raise row_error(where, column, row, f"{word!r} is no word")
        return raw

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[list[int]]:
        found = []
        several = _lists(raw, "tags", where, column)
        for row, (tags, words) in enumerate(zip(several, split.text, strict=True), 1):
            if len(tags) != len(words):
                message = f"{len(tags)} tags for {len(words)} words"
                raise row_error(where, column, row, message)
            try:
                found.append([class_id(tag, names) for tag in tags])
            except ValueError as error:
                raise row_error(where, column, row, str(error)) from None
        return found

    @override
    def encode(
        self, task: TaskSettings, split: Split, tokenizer: Any, names: list[str] | None
    ) -> Encoded:
        words = split.text
        if type(tokenizer.backend_tokenizer.pre_tokenizer).__name__ == "ByteLevel":
            # RoBERTa's words have their space before them; without it they would be other tokens.
            words = [[f" {word}" for word in sentence] for sentence in words]
        encoded = tokenizer(
            words,
            is_split_into_words=True,
            truncation=True,
            max_length=task.max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        labels, places = [], []
        for row, tags in enumerate(split.label):
            before = None
            for word in encoded.word_ids(row):
                first = word is not None and word != before
                labels.append(tags[word] if first else IGNORED)
                places.append(word if first else -1)
                before = word
        return Encoded(
            encoded["input_ids"],
            encoded["token_type_ids"],
            np.asarray(labels, np.int64),
            {"words": np.asarray(places, np.int32)},
            {"tags": split.label, "names": names},
        )

    @override
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        """Returns precision, recall and F1 of whole entities, and the accuracy of tags.

        Entities are those of seqeval, which counts as conlleval does; of tags that make none, such
        as parts of speech, the accuracy alone is returned. Words beyond the longest input count as
        outside, so what was cut is missed.
        """
        counts = _counts(outputs, tokens).sum(0)
        return {name: float(value) for name, value in _metrics(counts).items()}

    @override
    def bootstrap_metric(
        self, outputs: np.ndarray, tokens: Tokens, metric: str, draws: np.ndarray
    ) -> np.ndarray:
        counts = _counts(outputs, tokens)  # no entity goes beyond its sentence
        return _metrics(np.stack([counts[rows].sum(0) for rows in draws], axis=-1))[metric]

    @override
    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        assert names is not None
        return [
            {"label": [names[tag] for tag in tags], "prediction": [names[tag] for tag in found]}
            for tags, found in zip(split.label, _predicted(outputs, tokens, names), strict=True)
        ]


def _predicted(outputs: np.ndarray, tokens: Tokens, names: list[str]) -> list[list[int]]:
    """Returns the tag of each word; of one beyond the longest input that of no entity."""
    outside = names.index(_OUTSIDE) if _OUTSIDE in names else 0
    predicted = [[outside] * len(tags) for tags in tokens.references()["tags"]]
    best, words = outputs.argmax(-1), tokens.extra("words")
    for row in range(len(tokens)):
        at = slice(tokens.starts[row], tokens.starts[row + 1])
        for word, tag in zip(words[at], best[at], strict=True):
            if word >= 0:
                predicted[row][word] = int(tag)
    return predicted


def _counts(outputs: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Returns of each sentence what its metrics are made of, shape (sentences, 2 or 5).

    Its words, and those tagged right; where tags are of entities also the entities that are there,
    those found, and those of them that are right.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    references = tokens.references()
    names: list[str] = references["names"]
    if are_numbered(names):  # each but the first a kind of entity
        names = [_OUTSIDE, *(f"B-{number}" for number in range(1, len(names)))]
    of_entities = not _of_no_entity(names)
    counts = []
    for true, found in zip(references["tags"], _predicted(outputs, tokens, names), strict=True):
        own = [len(true), sum(map(eq, true, found))]
        if of_entities:
            there, seen = (
                set(get_entities([names[tag] for tag in tags])) for tags in (true, found)
            )
            own += [len(there), len(seen), len(there & seen)]
        counts.append(own)
    return np.array(counts)


def _metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the metrics of sums of counts, 0 where there is nothing to count; shape (5, …)."""
    words, alike, *of_entities = counts
    accuracy = {"accuracy": _share(alike, words)}
    if not of_entities:
        return accuracy
    there, found, right = of_entities
    return {
        "f1": _share(2 * right, there + found),
        "precision": _share(right, found),
        "recall": _share(right, there),
        **accuracy,
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, 1)


def _of_no_entity(names: list[str]) -> list[str]:
    """Returns the tags that are no part of an entity, nor outside; numbers are taken for parts."""
    if are_numbered(names):
        return []
    return [name for name in names if not _OF_ENTITIES.fullmatch(name)]


def _lists(raw: list[Any], what: str, where: str, column: str) -> list[list[Any]]:
    """Returns a column after checking that it holds lists."""
    for row, values in enumerate(raw, 1):
        if not isinstance(values, list):
            raise row_error(where, column, row, f"{values!r} is no list of {what}")
    return raw
