"""Questions whose answer is a span of a given text, as in SQuAD (Rajpurkar et al. 2016).

A context longer than the input is cut into windows that overlap by `task.stride` tokens. In a
window without the answer, and for a question without answer (SQuAD 2.0), the label is the first
token, [CLS]. A question is cut to half of the input that the overlap leaves, 126 tokens of BERT's
384, so that each window has at least as much new context.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from typing_extensions import override

from lkd_tune.config.settings.losses import LogitLoss
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.tasks.base import Kind, rounded, row_error
from lkd_tune.data.types import UNLABELLED, Batch, Encoded, Split, Tokens
from lkd_tune.losses.base import LossSum

# Candidates for starts and for ends, and the longest answer in tokens, as in BERT's own code.
_CANDIDATES, _MAX_ANSWER_TOKENS = 20, 30
# Logit of padding: its probability is 0, and 0 times it is finite, unlike minus infinity.
_PADDING_LOGIT = -1e9


class QuestionAnswering(Kind):
    """Start and end of an answer; a row of the loss is one of the two, over all tokens."""

    name = "question_answering"
    per_token = True
    num_outputs = 2

    @override
    def read_labels(
        self, raw: list[Any], split: Split, names: list[str] | None, where: str, column: str
    ) -> list[dict[str, list[Any]]]:
        assert split.pair is not None  # the columns of this kind have one
        found = []
        for row, (answers, context) in enumerate(zip(raw, split.pair, strict=True), 1):
            try:
                texts, starts = list(answers["text"]), [int(at) for at in answers["answer_start"]]
                pairs = list(zip(texts, starts, strict=True))
            except (KeyError, TypeError, ValueError, OverflowError):
                message = f"{answers!r} has no lists text and answer_start of equal length"
                raise row_error(where, column, row, message) from None
            for text, at in pairs:
                known = isinstance(text, str) and text and at >= 0
                if not known or not context.startswith(text, at):
                    message = f"the answer {text!r} is not in the context at character {at}"
                    raise row_error(where, column, row, message)
            found.append({"text": texts, "answer_start": starts})
        return found

    @override
    def encode(
        self, task: TaskSettings, split: Split, tokenizer: Any, names: list[str] | None
    ) -> Encoded:
        left = task.max_length - task.stride - tokenizer.num_special_tokens_to_add(pair=True)
        encoded = tokenizer(
            _cut(split.text, tokenizer, left // 2),
            split.pair,
            truncation="only_second",
            max_length=task.max_length,
            stride=task.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        examples = encoded["overflow_to_sample_mapping"]
        labels, offsets = np.zeros((len(examples), 2), np.int64), []
        for row, example in enumerate(examples):
            # Only tokens of the context have offsets in it; all others get -1.
            in_context = np.array(encoded.sequence_ids(row), dtype=object) == 1
            places = np.where(in_context[:, None], np.array(encoded["offset_mapping"][row]), -1)
            offsets.append(places)
            labels[row] = _token_span(split.label[example], places)
        contexts = [split.pair[i] for i in range(len(split.text))] if split.pair else []
        return Encoded(
            encoded["input_ids"],
            encoded["token_type_ids"],
            labels,
            {
                "offsets": np.concatenate(offsets).astype(np.int32),
                "questions": np.asarray(examples, np.int32),
            },
            {
                "contexts": contexts,
                "answers": [answers["text"] if answers else None for answers in split.label],
            },
        )

    @override
    def logits(self, output: Any) -> Tensor:
        """Returns the logits of starts and ends, shape (B, N, 2)."""
        return torch.stack([output.start_logits, output.end_logits], dim=-1)

    @override
    def loss_rows(self, logits: Tensor, batch: Batch) -> Tensor:
        """Returns the start and the end logits over all tokens, shape (2 B, N)."""
        over_tokens = logits.transpose(1, 2).masked_fill(~batch.mask[:, None], _PADDING_LOGIT)
        return over_tokens.reshape(-1, logits.shape[1])

    @override
    def soft_label_loss(self, rows: Tensor, teacher: Tensor, settings: LogitLoss) -> LossSum:
        if settings.divergence != "mse":
            return super().soft_label_loss(rows, teacher, settings)
        # Padding does not differ, but the mean over the tokens must not depend on it.
        tokens = (teacher > _PADDING_LOGIT / 2).sum(-1)
        squares = (rows - teacher.detach()).square().sum(-1) / tokens
        return LossSum(squares.sum(), lambda: torch.tensor(float(len(rows))))

    @override
    def loss_labels(self, batch: Batch) -> Tensor:
        return batch.labels.reshape(-1)

    @override
    def count_loss_rows(self, batch: Batch) -> int:
        return 2 * len(batch.labels)

    @override
    def score(self, outputs: np.ndarray, tokens: Tokens) -> dict[str, float]:
        """Returns exact match and F1 by SQuAD's definition, as shares of 1."""
        references = tokens.references()
        found = predict_answers(outputs, tokens, references["contexts"], references["answers"])
        return score_answers(found, references["answers"])

    @override
    def bootstrap_metric(
        self, outputs: np.ndarray, tokens: Tokens, metric: str, draws: np.ndarray
    ) -> np.ndarray:
        references = tokens.references()
        found = predict_answers(outputs, tokens, references["contexts"], references["answers"])
        each = [
            score_answers([text], [right])[metric]
            for text, right in zip(found, references["answers"], strict=True)
        ]
        return np.array(each)[draws].mean(-1)

    @override
    def data_row(self, example: int, tokens: Tokens) -> int:
        return int(tokens.extra("questions")[example])

    @override
    def predictions(
        self, outputs: np.ndarray, tokens: Tokens, split: Split, names: list[str] | None
    ) -> list[dict[str, Any]]:
        """Returns the best answers, each with its place in the context and its probability.

        The probabilities are a softmax over these answers, as in BERT's own predictions. The text
        "" means no answer.
        """
        assert split.pair is not None
        right = [answers["text"] for answers in split.label]
        best = best_answers(outputs, tokens, split.pair, right, most=_CANDIDATES)
        return [
            {
                "label": answers,
                "prediction": found[0].text,
                "n_best": [
                    {"text": one.text, "start": one.start, "probability": rounded(share)}
                    for one, share in zip(found, softmax([one.score for one in found]), strict=True)
                ],
            }
            for answers, found in zip(right, best, strict=True)
        ]


def _cut(questions: list[str], tokenizer: Any, most: int) -> list[str]:
    """Returns questions cut to `most` tokens; the tokenizer itself cuts contexts only."""
    questions = [question.strip() for question in questions]
    offsets = tokenizer(
        questions,
        add_special_tokens=False,
        truncation=True,
        max_length=most + 1,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )["offset_mapping"]
    # Cut at the first token beyond. It may begin within a character, which is then cut off, too.
    return [
        question[: places[most][0]].rstrip() if len(places) > most else question
        for question, places in zip(questions, offsets, strict=True)
    ]


def score_answers(found: list[str], answers: list[list[str]]) -> dict[str, float]:
    """Returns SQuAD's exact match and F1, as shares of 1.

    The definition is that of SQuAD 2.0's script. The script of 1.1 differs only where both answers
    consist of articles and punctuation: its F1 is then 0, and here 1, like the exact match.

    Args:
        found: The predicted answers, "" for none.
        answers: The right answers to each question, [] if there is none.
    """
    from torchmetrics.functional.text import squad

    scores = squad(
        [{"prediction_text": text, "id": str(i)} for i, text in enumerate(found)],
        [
            {"answers": {"text": right or [""], "answer_start": [0]}, "id": str(i)}
            for i, right in enumerate(answers)
        ],
    )
    return {name: float(scores[name]) / 100 for name in ("f1", "exact_match")}


def predict_answers(
    outputs: np.ndarray, tokens: Tokens, contexts: list[str], answers: list[list[str]]
) -> list[str]:
    """Returns the best answer to each question; see `best_answers`."""
    return [found[0].text for found in best_answers(outputs, tokens, contexts, answers, most=1)]


class Answer(NamedTuple):
    """A span of a context.

    Attributes:
        score: Sum of the logits of its start and its end.
        text: The text in the context; "" for no answer.
        start: Index of its first character; None for no answer.
    """

    score: float
    text: str
    start: int | None


def best_answers(
    outputs: np.ndarray, tokens: Tokens, contexts: list[str], answers: list[list[str]], *, most: int
) -> list[list[Answer]]:
    """Returns the best answers to each question, the best first, each text once.

    Args:
        outputs: Logits of start and end, unpadded, shape (all tokens, 2).
        tokens: The split.
        contexts: The context of each question.
        answers: The right answers to each question. If all questions have one, no answer is
            predicted only for windows without candidates.
        most: Largest number of answers per question.
    """
    found: list[list[Answer]] = [[] for _ in contexts]
    none = np.full(len(contexts), np.inf)
    offsets, questions = tokens.extra("offsets"), tokens.extra("questions")
    for row, question in enumerate(questions):
        at = slice(tokens.starts[row], tokens.starts[row + 1])
        logits, places = outputs[at], offsets[at]
        none[question] = min(none[question], logits[0].sum())
        for score, start, end in _best_spans(logits, places[:, 0] >= 0, most):
            begin, after = int(places[start, 0]), int(places[end, 1])
            found[question].append(Answer(score, contexts[question][begin:after], begin))
    all_answered = all(answers)
    for candidates, score in zip(found, none, strict=True):
        if not all_answered or not candidates:
            candidates.insert(0, Answer(float(score), "", None))
    return [_distinct(sorted(candidates, key=lambda it: -it.score), most) for candidates in found]


def _distinct(candidates: list[Answer], most: int) -> list[Answer]:
    first: dict[str, Answer] = {}
    for answer in candidates:
        first.setdefault(answer.text, answer)
    return list(first.values())[:most]


def _best_spans(
    logits: np.ndarray, admissible: np.ndarray, most: int
) -> list[tuple[float, int, int]]:
    """Returns score, start and end token of the best spans of a window, the best first."""
    tokens = np.flatnonzero(admissible)
    starts = tokens[np.argsort(-logits[tokens, 0], kind="stable")[:_CANDIDATES]]
    ends = tokens[np.argsort(-logits[tokens, 1], kind="stable")[:_CANDIDATES]]
    scores = logits[starts, 0][:, None] + logits[ends, 1][None]
    length = ends[None] - starts[:, None]
    scores = np.where((length >= 0) & (length < _MAX_ANSWER_TOKENS), scores, -np.inf)
    best = np.argsort(-scores, axis=None, kind="stable")[:most]
    places = zip(*np.unravel_index(best, scores.shape), strict=True)
    return [
        (float(scores[i, j]), int(starts[i]), int(ends[j]))
        for i, j in places
        if np.isfinite(scores[i, j])
    ]


def _token_span(answers: dict[str, list[Any]] | None, places: np.ndarray) -> tuple[int, int]:
    """Returns the first and last token of the first answer, (0, 0) if the window lacks it."""
    if answers is None:
        return UNLABELLED, UNLABELLED
    if not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    end = begin + len(answers["text"][0])
    inside = (places[:, 0] < end) & (places[:, 1] > begin) & (places[:, 0] >= 0)
    found = np.flatnonzero(inside)
    if not len(found) or places[found[0], 0] > begin or places[found[-1], 1] < end:
        return 0, 0  # the window holds only a part of the answer
    return int(found[0]), int(found[-1])
