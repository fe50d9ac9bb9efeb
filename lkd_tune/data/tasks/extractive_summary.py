"""Extractive summaries: the sentences of a document that make the best summary.

Each sentence has [CLS] before it and [SEP] after it. The model classifies the [CLS] as in the
summary or out of it, as in BertSum (Liu & Lapata, "Text Summarization with Pretrained Encoders",
EMNLP 2019). All token types are 0: most encoders do not know BertSum's alternating ones. The data
give a summary as text; training labels are a greedy choice of sentences, see `best_sentences`.

The model sees the first sentences of a document that fit into `task.max_length`. News collections
hold a few documents or summaries without a word. They have no training labels and score 0; if more
than 1% are empty, the data are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
from typing_extensions import override

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.base import LabelledTokens, row_error
from lkd_tune.data.tasks.rouge import best_sentences, rouge, words
from lkd_tune.data.tasks.sentence_splitting import split_sentences
from lkd_tune.data.types import IGNORED, Encoded, Split, Tokens

_NAMES = ["out", "in"]
# Documents that are tokenised at a time, because a tokenizer's results take much memory.
_TOKENIZER_BATCH = 1000
# Largest share of documents, and of summaries, that may be empty.
_MAX_EMPTY_SHARE = 0.01


class ExtractiveSummary(LabelledTokens):
    """Whether a sentence is in the summary, predicted at its [CLS]."""

    name = "extractive_summary"
    per_token = True
    token_labels = True
    num_outputs = 2

    @override
    def class_names(self, raw: list[Any], where: str, column: str) -> list[str]:
        return _NAMES

    @override
    def read_texts(self, raw: list[Any], where: str, column: str) -> list[list[str]]:
        """Returns the sentences of each document, given as a text or as a list of sentences."""
        documents = []
        for row, document in enumerate(raw, 1):
            if isinstance(document, str):
                sentences = split_sentences(document)
            elif _are_texts(document):
                sentences = [text.strip() for text in document if text.strip()]
            else:
                message = f"{shortened(document)} is neither a text nor a list of sentences"
                raise row_error(where, column, row, message)
            documents.append(sentences)
        _refuse_empty(documents, where, column, "the document has no sentence")
        return documents

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[str]:
        """Returns the summaries, each given as a text or as a list of sentences."""
        found = []
        for row, summary in enumerate(raw, 1):
            text = "\n".join(summary) if _are_texts(summary) else summary or ""
            if not isinstance(text, str):
                raise row_error(where, column, row, f"{shortened(summary)} is not a text")
            found.append(text)
        _refuse_empty([*map(words, found)], where, column, "the summary has no words")
        return found

    @override
    def encode(
        self, task: TaskSettings, split: Split, tokenizer: Any, names: list[str] | None
    ) -> Encoded:
        if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
            message = "its tokenizer lacks a [CLS] or a [SEP] token"
            raise SpecError(Problem("", "teacher", message))
        ids, labels, places, documents = [], [], [], []
        for document, pieces, summary in zip(
            split.text,
            _tokenize_sentences(split.text, tokenizer, task.max_length),
            split.label,
            strict=True,
        ):
            row, begins = _join_pieces(pieces, tokenizer, task.max_length)
            # Only among the sentences that the model sees.
            chosen = best_sentences(document[: len(begins)], summary, task.sentences)
            label, place = np.full(len(row), IGNORED), np.full(len(row), -1)
            place[begins] = np.arange(len(begins))
            if words(summary):
                label[begins] = np.isin(np.arange(len(begins)), chosen)
            ids.append(row)
            labels.append(label)
            places.append(place)
            documents.append(document[: max(len(begins), task.sentences)])
        return Encoded(
            ids,
            [[0] * len(row) for row in ids],
            np.concatenate(labels).astype(np.int64),
            {"sentences": np.concatenate(places).astype(np.int32)},
            {"most": task.sentences, "documents": documents, "summaries": split.label},
        )

    @override
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        """Returns ROUGE F1 of the chosen sentences, and of as many first sentences (lead)."""
        assert tokens.folder is not None
        own = {name: float(each.mean()) for name, each in _rouge(outputs, tokens).items()}
        return {**own, **_lead(tokens.folder)}

    @override
    def bootstrap_metric(
        self, outputs: np.ndarray, tokens: Tokens, metric: str, draws: np.ndarray
    ) -> np.ndarray:
        return _rouge(outputs, tokens)[metric][draws].mean(-1)

    @override
    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        """Returns the summaries, and the numbers of the chosen sentences, counted from 1."""
        chosen = choose_sentences(outputs, tokens, tokens.references()["most"])
        return [
            {
                "label": summary,
                "prediction": _joined_sentences(document, numbers),
                "sentences": [number + 1 for number in numbers],
            }
            for document, summary, numbers in zip(split.text, split.label, chosen, strict=True)
        ]


def _rouge(outputs: np.ndarray, tokens: Tokens) -> dict[str, np.ndarray]:
    """Returns the ROUGE scores of each document, by metric."""
    references = tokens.references()
    chosen = choose_sentences(outputs, tokens, references["most"])
    found = map(_joined_sentences, references["documents"], chosen)
    return rouge(list(found), references["summaries"])


def _joined_sentences(document: Sequence[str], numbers: Sequence[int]) -> str:
    return " ".join(document[number] for number in numbers)


def choose_sentences(outputs: np.ndarray, tokens: Tokens, most: int) -> list[list[int]]:
    """Returns the sentences with the largest logits of each document, in document order.

    Args:
        outputs: Logits, unpadded, shape (all tokens, 2).
        tokens: The split.
        most: Sentences to choose per document; all of a document that has fewer.
    """
    likely, places = outputs[:, 1] - outputs[:, 0], tokens.extra("sentences")
    chosen = []
    for row in range(len(tokens)):
        at = slice(tokens.starts[row], tokens.starts[row + 1])
        sentences = likely[at][places[at] >= 0]
        chosen.append(sorted(np.argsort(-sentences, kind="stable")[:most].tolist()))
    return chosen


@lru_cache(maxsize=4)
def _lead(folder: Path) -> dict[str, float]:
    """Returns the scores of the first sentences; cached, as they take as long as a model's."""
    references = json.loads((folder / "references.json").read_text("utf-8"))
    lead = [" ".join(document[: references["most"]]) for document in references["documents"]]
    scores = rouge(lead, references["summaries"])
    return {f"lead_{name}": float(each.mean()) for name, each in scores.items()}


def _tokenize_sentences(
    documents: Sequence[Sequence[str]], tokenizer: Any, longest: int
) -> Iterator[list[list[int]]]:
    """Yields the token ids of each document's sentences, long sentences truncated."""
    for begin in range(0, len(documents), _TOKENIZER_BATCH):
        some = documents[begin : begin + _TOKENIZER_BATCH]
        ids = iter(
            tokenizer(
                list(chain.from_iterable(some)) or [""],
                add_special_tokens=False,
                truncation=True,
                max_length=longest - 2,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
        )
        for document in some:
            yield [next(ids) for _ in document]


def _join_pieces(
    pieces: Sequence[Sequence[int]], tokenizer: Any, longest: int
) -> tuple[list[int], list[int]]:
    """Returns the first sentences that fit, between [CLS] and [SEP], and where each begins."""
    row: list[int] = []
    begins: list[int] = []
    for piece in pieces:
        if len(row) + len(piece) + 2 > longest:  # never the first: it was truncated to fit
            break
        begins.append(len(row))
        row += [tokenizer.cls_token_id, *piece, tokenizer.sep_token_id]
    return row or [tokenizer.cls_token_id, tokenizer.sep_token_id], begins


def _refuse_empty(values: Sequence[Any], where: str, column: str, message: str) -> None:
    """Raises an error for the first empty row if too many rows are empty."""
    empty = [row for row, value in enumerate(values, 1) if not value]
    if len(empty) > _MAX_EMPTY_SHARE * len(values):
        share = f"{len(empty)} of {len(values)} rows; {_MAX_EMPTY_SHARE:.0%} may be empty"
        raise row_error(where, column, empty[0], f"{message} ({share})")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
