"""Token classification: a tag for each word, such as BIO tags of named entities."""

from __future__ import annotations

import re
from operator import eq
from typing import Any

import numpy as np
from typing_extensions import override

from lkd_tune.config.errors import Problem
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.base import (
    LabelledTokens,
    are_numbered,
    class_id,
    classes_in,
    read_each,
    row_error,
)
from lkd_tune.data.types import IGNORED, UNLABELLED, Encoded, Split, Tokens

_OUTSIDE = "O"
# All tags of entities that seqeval knows: O, and begin, inside, end or single.
_ENTITY_TAG = re.compile("O|[BIES](-.*)?")


class Tagging(LabelledTokens):
    """A tag for each word, predicted at the word's first token."""

    name = "tagging"
    per_token = True
    token_labels = True

    @override
    def class_names(self, raw: list[Any], where: str, column: str) -> list[str]:
        rows = enumerate(_lists(raw, "tags", where, column), 1)
        names = classes_in(((row, tag) for row, tags in rows for tag in tags), where, column)
        # O has id 0, by convention.
        return sorted(names, key=lambda tag: tag != _OUTSIDE)

    @override
    def metric_problem(self, task: TaskSettings, names: list[str]) -> Problem | None:
        others = _non_entity_tags(names)
        if task.metric == "accuracy" or not others:
            return None
        message = (
            f"{task.metric} counts entities, whose tags are O, B-… and I-… (or E-… and S-…), not "
            f"{', '.join(others[:5])}; set task.metric to accuracy, or rewrite the tags"
        )
        return Problem("", "task.metric", message)

    @override
    def read_texts(self, raw: list[Any], where: str, column: str) -> list[list[str]]:
        for row, words in enumerate(_lists(raw, "words", where, column), 1):
            for word in words:
                if not isinstance(word, str):
                    raise row_error(where, column, row, f"{word!r} is not a word")
        return raw

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[list[int]]:
        def ids(row: tuple[list[Any], list[str]]) -> list[int]:
            tags, words = row
            if len(tags) != len(words):
                raise ValueError(f"{len(tags)} tags for {len(words)} words")
            return [class_id(tag, names) for tag in tags]

        several = _lists(raw, "tags", where, column)
        return read_each(zip(several, split.text, strict=True), ids, where, column)

    @override
    def encode(
        self, task: TaskSettings, split: Split, tokenizer: Any, names: list[str] | None
    ) -> Encoded:
        words = split.text
        if type(tokenizer.backend_tokenizer.pre_tokenizer).__name__ == "ByteLevel":
            # RoBERTa's tokens include the space before a word; without it the token ids differ.
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
        # Training text may have no tags; then the logits at a word's first token are compared.
        every = (
            [UNLABELLED] * len(words) if tags is None else tags
            for tags, words in zip(split.label, split.text, strict=True)
        )
        for row, tags in enumerate(every):
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

        seqeval finds the entities, as conlleval does. For tags that are not of entities, such as
        parts of speech, only the accuracy is returned. Words beyond the longest input are predicted
        as outside, so entities that were cut off count as missed.
        """
        counts = _counts(outputs, tokens).sum(0)
        return {name: float(value) for name, value in _metrics(counts).items()}

    @override
    def constant_outputs(self, tokens: Tokens) -> np.ndarray:
        """Returns the logits of the most frequent tag."""
        tags = tokens.labels[tokens.labels != IGNORED]
        counts = np.bincount(tags, minlength=1)
        return np.tile((counts == counts.max()).astype(np.float32), (len(tokens.labels), 1))

    @override
    def bootstrap_metric(
        self, outputs: np.ndarray, tokens: Tokens, metric: str, draws: np.ndarray
    ) -> np.ndarray:
        counts = _counts(outputs, tokens)  # no entity spans two sentences
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
    """Returns the predicted tag of each word; O for words beyond the longest input."""
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
    """Returns the counts of each sentence that metrics need, shape (sentences, 2 or 5).

    They are words and correctly tagged words and, if tags are of entities, also true entities,
    predicted entities and correctly predicted entities.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    references = tokens.references()
    names: list[str] = references["names"]
    if are_numbered(names):  # each id but 0 is taken for a type of entity
        names = [_OUTSIDE, *(f"B-{number}" for number in range(1, len(names)))]
    of_entities = not _non_entity_tags(names)
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
    """Returns the metrics from sums of counts of shape (2 or 5, …); 0 where a divisor is 0."""
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


def _non_entity_tags(names: list[str]) -> list[str]:
    """Returns the tags that are neither O nor of an entity; numbers are taken for entities."""
    if are_numbered(names):
        return []
    return [name for name in names if not _ENTITY_TAG.fullmatch(name)]


def _lists(raw: list[Any], what: str, where: str, column: str) -> list[list[Any]]:
    """Returns a column after checking that it holds lists."""
    for row, values in enumerate(raw, 1):
        if not isinstance(values, list):
            raise row_error(where, column, row, f"{values!r} is not a list of {what}")
    return raw
