"""Scoring a model on a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.data.loading import count_labels, label_names, load_split
from lkd_tune.data.tasks.base import Kind, are_numbered
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import load_to_run, load_tokenizer
from lkd_tune.models.placement import running

_BATCH = 128
_HOST = torch.device("cpu")


def evaluate(
    model: Any, task: TaskSettings, tokens: Tokens, on: torch.device, *, cut: int = 1
) -> dict[str, float]:
    """Returns all metrics of a model, or of a DeepSpeed engine, on a tokenised split.

    In a process group the ranks share the work and get the same result; all of them must call.

    Args:
        model: What is scored.
        task: Whose metrics.
        tokens: The split.
        on: Where the model is.
        cut: Makes batches so many times smaller, where memory is short.
    """
    kind = kind_of(task)
    return kind.score(predict(model, kind, tokens, on, cut=cut), tokens)


def predict(
    model: Any, kind: Kind, tokens: Tokens, on: torch.device, *, cut: int = 1
) -> np.ndarray:
    """Returns a model's answers for a split, its logits for most kinds, shape (examples, C).

    Where the task's are of tokens: unpadded, shape (all tokens, C).
    """
    in_group = dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if in_group else (0, 1)
    order = np.argsort(tokens.lengths, kind="stable")
    batches = np.array_split(order, max(1, -(-len(order) // max(1, _BATCH // cut))))
    # ZeRO-3 gathers weights in each forward pass, so all ranks need equally many of them.
    rounds = -(-len(batches) // world)
    mine = [batches[(i * world + rank) % len(batches)] for i in range(rounds)]
    training = model.training
    model.eval()
    parts = []
    with torch.no_grad():
        for examples in mine:
            batch = kind.prepare_batch(tokens.batch(examples, _HOST), tokens, seed=0, step=0).to(on)
            found = kind.logits(forward(model, batch, hidden_states=False))
            parts.append((examples, kind.scoring_outputs(found, batch).float().cpu().numpy()))
    model.train(training)
    if world > 1:
        gathered: list[Any] = [None] * world
        dist.all_gather_object(gathered, parts)
        parts = [part for rank_parts in gathered for part in rank_parts]
    width = parts[0][1].shape[-1]
    outputs = np.empty((tokens.starts[-1] if kind.per_token else len(tokens), width), np.float32)
    for examples, logits in parts:
        if not kind.per_token:
            outputs[examples] = logits
            continue
        for example, own in zip(examples, logits, strict=True):
            outputs[tokens.starts[example] : tokens.starts[example + 1]] = own[
                : tokens.lengths[example]
            ]
    return outputs


def evaluate_model(
    model: str,
    task: TaskSettings,
    *,
    splits: Sequence[str] = ("dev",),
    cache: Path | None = None,
    inference: Inference = PLAIN,
) -> dict[str, dict[str, float]]:
    """Returns the metrics of a model folder or hub id on each split: {"dev": {…}, …}.

    Args:
        model: What is scored.
        task: Whose data and metrics.
        splits: On which of them.
        cache: Folder for tokenised data; none: the user's cache.
        inference: How the model is run.

    Raises:
        SpecError: If the model or the data can't be had or do not fit together.
    """
    kind, metrics = kind_of(task), {}
    for split, outputs, tokens in _answers(model, task, splits, cache, inference):
        metrics[split] = kind.score(outputs, tokens)
    return metrics


def predict_rows(
    model: str, task: TaskSettings, split: str, *, cache: Path | None = None
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns the metrics of a model on a split, and what it predicts for each row of it.

    Args:
        model: Its folder or hub id.
        task: Whose data and metrics.
        split: 'dev' or 'test'.
        cache: Folder for tokenised data; none: the user's cache.

    Returns:
        The metrics, and for each row its number from 1, its text, `label` and `prediction`, and
        what the kind of task can tell beyond that, such as probabilities.

    Raises:
        SpecError: If the model or the data can't be had or do not fit together, or if the task has
            no prediction for a row.
    """
    kind = kind_of(task)
    check_of_rows(task)
    ((_, outputs, tokens),) = _answers(model, task, [split], cache, PLAIN)
    text = load_split(task, split, cache=cache)
    found = kind.predictions(outputs, tokens, text, label_names(task, cache=cache))
    pairs = [{}] * len(found) if text.pair is None else [{"pair": pair} for pair in text.pair]
    return kind.score(outputs, tokens), [
        {"row": row, "text": own, **pair, **predicted}
        for row, (own, pair, predicted) in enumerate(zip(text.text, pairs, found, strict=True), 1)
    ]


def check_of_rows(task: TaskSettings) -> None:
    """Refuses a task that has no prediction for a row of its data.

    Raises:
        SpecError: If that is so.
    """
    if not KINDS[task.kind].has_labels:
        message = f"{task.kind} has no prediction for a row of the data; use `evaluate` as it is"
        raise SpecError(Problem("", "task.kind", message))


def _answers(
    model: str,
    task: TaskSettings,
    splits: Sequence[str],
    cache: Path | None,
    inference: Inference,
) -> Iterator[tuple[str, np.ndarray, Tokens]]:
    """Gives each split with a model's answers for it and its tokens."""
    kind = kind_of(task)
    loaded, tokenizer = load_to_run(model, kind.head, inference), load_tokenizer(model)
    check_labels(loaded.config, model, task, cache=cache)
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with running(loaded, on, inference) as run:
        for split in splits:
            tokens = load_tokens(task, split, tokenizer, cache=cache)
            yield split, predict(run, kind, tokens, on), tokens


def check_labels(
    config: Any, model: str, task: TaskSettings, *, cache: Path | None = None
) -> int | None:
    """Returns the width of a task's output, which a model must have too; None: the vocabulary.

    Args:
        config: The model's configuration.
        model: Its folder or hub id.
        task: The task.
        cache: Folder for data.

    Raises:
        SpecError: If the model has another width, or other classes or another order of them by
            their names. Where either has numbers only, their meaning can't be told.
    """
    width = count_labels(task, cache=cache)
    if width is None:
        return None
    if config.num_labels != width:
        message = (
            f"{model} tells {config.num_labels} classes apart, the task {task.name} has {width}; "
            "fine-tune it on this task first (teacher.train)"
        )
        raise SpecError(Problem("", "teacher", message))
    named = label_names(task, cache=cache)
    theirs = [str(config.id2label.get(i)) for i in range(width)]
    if not named or are_numbered(named) or are_numbered(theirs):
        return width
    ours, others = ([name.casefold() for name in names] for names in (named, theirs))
    if ours != others:
        if sorted(ours) == sorted(others):
            said, when = "has the classes of the task in another order", "name their labels"
        else:
            said = f"has other classes than the task, which has {', '.join(named)}"
            when = "have ids for labels that stand for these"
        message = (
            f"{model} {said}: {', '.join(theirs)}; set task.labels to [{', '.join(theirs)}] if the "
            f"data {when}, or fine-tune another teacher"
        )
        raise SpecError(Problem("", "task.labels", message))
    return width
