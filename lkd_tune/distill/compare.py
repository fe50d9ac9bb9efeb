"""Two models on the same data: is one better, where do they differ, what does each cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch

from lkd_tune.distill.evaluate import check_labels, predict
from lkd_tune.distill.models import load_config, load_model, load_tokenizer
from lkd_tune.distill.size import count_size, fitting_length, time_forward
from lkd_tune.distill.tasks.data import Split, label_names, load_split
from lkd_tune.distill.tasks.kind import Kind
from lkd_tune.distill.tasks.kinds import kind_of
from lkd_tune.distill.tasks.summaries import choose_sentences
from lkd_tune.distill.tokens import Tokens, load_tokens
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.settings import TaskSettings
from lkd_tune.spec.size import ModelSize

_RESAMPLES = 1000
_SHOWN = 10
# Kinds with one answer for each example, which alone can be drawn again one by one.
_KINDS = ("classification", "regression", "multi_label", "extractive_summary")
# Characters of a text that are shown where it is long.
_LONG = 100


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        model: Folder or hub id.
        score: The task's metric.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        metrics: All metrics.
        size: Parameters, FLOPs, disk size, and latencies on this device.
    """

    model: str
    score: float
    low: float
    high: float
    metrics: dict[str, float]
    size: ModelSize


@dataclass(frozen=True)
class Difference:
    """An example that the models answer differently.

    Attributes:
        text: The text, and the second of a pair.
        label: What is right.
        answers: Of the first and of the second model.
    """

    text: str
    label: str
    answers: tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """Two models side by side.

    Attributes:
        sides: The models, in the order they were given.
        gain: Score of the second less that of the first.
        low: Lower end of the gain's 95 % interval, from the same examples for both.
        high: Upper end.
        agreement: Share of the examples that both answer alike; None in regression.
        differences: Some examples that they answer differently; in regression those furthest apart.
        examples: How many were scored.
    """

    sides: tuple[Side, Side]
    gain: float
    low: float
    high: float
    agreement: float | None
    differences: list[Difference]
    examples: int


def compare_models(
    models: tuple[str, str],
    task: TaskSettings,
    *,
    split: str = "dev",
    seed: int = 0,
    cache: Path | None = None,
) -> Comparison:
    """Returns a comparison of two models on a split.

    Intervals are percentiles of scores on examples drawn again with replacement (Efron 1979), the
    same draws for both models.

    Args:
        models: Folders or hub ids; they may have other tokenizers.
        task: The task.
        split: 'dev' or 'test'.
        seed: Of the draws.
        cache: Folder for tokenised data; none: the user's cache.

    Raises:
        SpecError: If a model or the data can't be had or do not fit, or the task has no one answer
            for each example.
    """
    if task.kind not in _KINDS:
        message = f"{task.kind} can't be compared; {', '.join(_KINDS)} can. Use `evaluate` for each"
        raise SpecError(Problem("", "task.kind", message))
    kind = kind_of(task)
    text = load_split(task, split, cache=cache)
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    outputs, sizes, timed, splits = [], [], [], []
    for model in models:
        loaded, tokenizer = load_model(model, kind.head), load_tokenizer(model)
        check_labels(loaded.config, model, task, cache=cache)
        tokens = load_tokens(task, split, tokenizer, cache=cache)
        splits.append(tokens)
        outputs.append(predict(loaded.to(on), kind, tokens, on))
        saved_as = load_config(model).dtype or torch.float32
        size = count_size(loaded.config, kind.head, task.max_length, saved_as)
        sizes.append(size)
        timed.append(loaded)
    # Both on inputs of one length, one that both take.
    length = min(fitting_length(model.config, task.max_length) for model in timed)
    sizes = [
        size.model_copy(update={"latency_ms": time_forward(model, 1, length)})
        for size, model in zip(sizes, timed, strict=True)
    ]
    draws = np.random.default_rng(seed).integers(0, len(tokens), (_RESAMPLES, len(tokens)))
    answered = list(zip(outputs, splits, strict=True))
    scores = [_drawn_scores(kind, task.metric, found, of, draws) for found, of in answered]
    metrics = [kind.score(found, of) for found, of in answered]
    sides = [
        Side(model, found[task.metric], *_interval(drawn), found, size)
        for model, found, drawn, size in zip(models, metrics, scores, sizes, strict=True)
    ]
    agreement, differences = _differences(task, answered, text, label_names(task, cache=cache))
    return Comparison(
        sides=(sides[0], sides[1]),
        gain=sides[1].score - sides[0].score,
        low=_interval(scores[1] - scores[0])[0],
        high=_interval(scores[1] - scores[0])[1],
        agreement=agreement,
        differences=differences,
        examples=len(tokens),
    )


def _drawn_scores(
    kind: Kind, metric: str, outputs: np.ndarray, tokens: Tokens, draws: np.ndarray
) -> np.ndarray:
    """Returns the metric on each draw of the examples."""
    each = kind.of_examples(outputs, tokens)
    if each is not None:
        return each[metric][draws].mean(-1)
    return np.array(
        [
            kind.score(outputs[drawn], replace(tokens, labels=tokens.labels[drawn]))[metric]
            for drawn in draws
        ]
    )


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _differences(
    task: TaskSettings,
    answered: Sequence[tuple[np.ndarray, Tokens]],
    text: Split,
    names: list[str] | None,
) -> tuple[float | None, list[Difference]]:
    if task.kind == "extractive_summary":
        return _other_summaries(task, answered, text)
    outputs = [found for found, _ in answered]
    if task.kind == "regression":
        apart = np.abs(outputs[0][:, 0] - outputs[1][:, 0])
        agreement, rows = None, np.argsort(-apart, kind="stable")
    else:
        answers = [
            found > 0 if task.kind == "multi_label" else found.argmax(-1)[:, None]
            for found in outputs
        ]
        alike = (answers[0] == answers[1]).all(-1)
        agreement, rows = float(alike.mean()), np.flatnonzero(~alike)
    return agreement, [
        Difference(
            text=" | ".join([text.text[row], *([text.pair[row]] if text.pair else [])]),
            label=_named(text.label[row], names),
            answers=(_answer(task, outputs[0][row], names), _answer(task, outputs[1][row], names)),
        )
        for row in rows[:_SHOWN]
    ]


def _other_summaries(
    task: TaskSettings, answered: Sequence[tuple[np.ndarray, Tokens]], text: Split
) -> tuple[float, list[Difference]]:
    """Returns the share of documents of which both choose the same sentences, and some others."""
    ours, theirs = (choose_sentences(found, of, task.sentences) for found, of in answered)
    rows = [row for row in range(len(ours)) if ours[row] != theirs[row]]
    return 1 - len(rows) / len(ours), [
        Difference(
            text=shorten(" ".join(text.text[row]), _LONG, placeholder=" …"),
            label=shorten(text.label[row], _LONG, placeholder=" …"),
            answers=(_sentences(ours[row]), _sentences(theirs[row])),
        )
        for row in rows[:_SHOWN]
    ]


def _sentences(numbers: Sequence[int]) -> str:
    return "sentences " + ", ".join(str(number + 1) for number in numbers)


def _answer(task: TaskSettings, logits: np.ndarray, names: list[str] | None) -> str:
    if task.kind == "regression":
        return f"{logits[0]:.2f}"
    if task.kind == "multi_label":
        return _named(np.flatnonzero(logits > 0).tolist(), names)
    return _named(int(logits.argmax()), names)


def _named(label: object, names: list[str] | None) -> str:
    if isinstance(label, list):
        return ", ".join(_named(one, names) for one in label) or "none"
    return names[label] if names and isinstance(label, int) else str(label)
