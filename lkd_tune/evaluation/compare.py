"""A comparison of two models on the same data: scores, differing predictions, and costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import label_names, load_split
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Split
from lkd_tune.evaluation.scoring import check_labels, check_predicts_rows, predict
from lkd_tune.models.loading import load_config, load_model, load_tokenizer
from lkd_tune.models.size import count_size, fitting_length, forward_call
from lkd_tune.records.measurement import ModelSize
from lkd_tune.runtime.hardware import timed_on
from lkd_tune.runtime.timing import busy_warning, time_in_turns

_RESAMPLES = 1000
_MAX_DIFFERENCES = 10
_MAX_CHARACTERS = 200


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
    """An example for which the predictions differ.

    Attributes:
        text: The text, or the two texts of a pair.
        label: The label.
        answers: The predictions of the first and of the second model.
    """

    text: str
    label: str
    answers: tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """Two models side by side.

    Attributes:
        sides: The models, in the order they were given.
        gain: The second score minus the first.
        low: Lower end of the gain's 95 % bootstrap interval, from paired samples.
        high: Upper end.
        agreement: Share of examples with the same prediction; None in regression.
        differences: Some examples with different predictions; in regression those that differ most.
        examples: Number of scored examples.
        device: What both were timed on.
        warning: What is wrong with the latencies; None for nothing.
    """

    sides: tuple[Side, Side]
    gain: float
    low: float
    high: float
    agreement: float | None
    differences: list[Difference]
    examples: int
    device: str
    warning: str | None


def compare_models(
    models: tuple[str, str],
    task: TaskSettings,
    *,
    split: str = "dev",
    seed: int = 0,
    cache: Path | None = None,
) -> Comparison:
    """Returns a comparison of two models on a split.

    Intervals are percentiles of scores on bootstrap samples of the examples (Efron 1979). Both
    models have the same samples.

    Args:
        models: Folders or hub ids. Their tokenizers may differ.
        task: The task.
        split: 'dev' or 'test'.
        seed: For the bootstrap samples.
        cache: Folder for tokenized data. Default: the user's cache.

    Raises:
        SpecError: If a model or the data can't be loaded or do not fit, or the task has no
            predictions for rows.
    """
    check_predicts_rows(task)
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
    # Both are timed at the same length, which both support.
    length = min(fitting_length(model.config, task.max_length) for model in timed)
    timings = time_in_turns([forward_call(model, 1, length) for model in timed], on)
    sizes = [
        size.model_copy(update={"latency_ms": timing.ms, "latency_spread": timing.spread})
        for size, timing in zip(sizes, timings, strict=True)
    ]
    rows = len(text.text)
    draws = np.random.default_rng(seed).integers(0, rows, (_RESAMPLES, rows))
    answered = list(zip(outputs, splits, strict=True))
    scores = [kind.bootstrap_metric(found, of, task.metric, draws) for found, of in answered]
    metrics = [kind.score(found, of) for found, of in answered]
    sides = [
        Side(model, found[task.metric], *_interval(drawn), found, size)
        for model, found, drawn, size in zip(models, metrics, scores, sizes, strict=True)
    ]
    names = label_names(task, cache=cache)
    agreement, differences = _differences(
        text, *(kind.predictions(found, of, text, names) for found, of in answered)
    )
    return Comparison(
        sides=(sides[0], sides[1]),
        gain=sides[1].score - sides[0].score,
        low=_interval(scores[1] - scores[0])[0],
        high=_interval(scores[1] - scores[0])[1],
        agreement=agreement,
        differences=differences,
        examples=rows,
        device=timed_on(on, bf16=False),
        warning=busy_warning([timing.spread for timing in timings]),
    )


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _differences(
    text: Split, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> tuple[float | None, list[Difference]]:
    """Returns the share of rows with equal predictions (None for numbers), and some others."""
    answers = [[row["prediction"] for row in side] for side in (first, second)]
    agreement: float | None = None
    if isinstance(answers[0][0], float):
        distance = np.abs(np.subtract(answers[0], answers[1]))
        rows = np.argsort(-distance, kind="stable")
    else:
        others = np.array([a != b for a, b in zip(*answers, strict=True)])
        agreement, rows = float(1 - others.mean()), np.flatnonzero(others)
    return agreement, [
        Difference(
            text=" | ".join(_words(part[row]) for part in (text.text, text.pair) if part),
            label=_shown(first[row], "label"),
            answers=(_shown(first[row], "prediction"), _shown(second[row], "prediction")),
        )
        for row in rows[:_MAX_DIFFERENCES]
    ]


def _words(text: Any) -> str:
    return _short(text if isinstance(text, str) else " ".join(text))


def _shown(row: dict[str, Any], what: str) -> str:
    value = row[what]
    if what == "prediction" and "sentences" in row:
        return "sentences " + ", ".join(map(str, row["sentences"]))
    if isinstance(value, float):
        return f"{value:.2f}"
    return _short((", ".join(value) if isinstance(value, list) else value) or "none")


def _short(text: str) -> str:
    return shorten(text, _MAX_CHARACTERS, placeholder=" …")
