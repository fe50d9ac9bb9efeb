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
from lkd_tune.data.batches import batches_of_tokens
from lkd_tune.data.loading import count_labels, label_names, load_split
from lkd_tune.data.tasks.base import Kind, are_numbered
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import load_for_inference, load_tokenizer
from lkd_tune.models.placement import running

# A GPU is busy with launches unless batches are large; a CPU's cache is full long before.
_BATCH_TOKENS = {"cuda": 32_768, "cpu": 4_096}
_HOST = torch.device("cpu")


def evaluate(
    model: Any, task: TaskSettings, tokens: Tokens, on: torch.device, *, batch_divisor: int = 1
) -> dict[str, float]:
    """Returns all metrics of a model, or of a DeepSpeed engine, on a tokenised split.

    In a process group this is collective: the ranks share the work and get the same result.

    Args:
        model: The model.
        task: The task whose metrics are computed.
        tokens: The split.
        on: Where the model is.
        batch_divisor: Divides the number of tokens in a batch, to save memory.
    """
    kind = kind_of(task)
    return kind.score(predict(model, kind, tokens, on, batch_divisor=batch_divisor), tokens)


def predict(
    model: Any, kind: Kind, tokens: Tokens, on: torch.device, *, batch_divisor: int = 1
) -> np.ndarray:
    """Returns a model's answers for a split, for most tasks its logits, shape (examples, C).

    For tasks with an answer per token the shape is (all tokens, C), without padding.
    """
    in_group = dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if in_group else (0, 1)
    batches = batches_of_tokens(tokens.lengths, _BATCH_TOKENS[on.type] // batch_divisor)
    # ZeRO-3 gathers weights in each forward pass, so all ranks need the same number of passes.
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
        model: The model.
        task: The task with data and metrics.
        splits: The splits.
        cache: Folder for tokenized data. Default: the user's cache.
        inference: How the model runs.

    Raises:
        SpecError: If the model or the data can't be loaded or do not fit together.
    """
    kind, metrics = kind_of(task), {}
    for split, outputs, tokens in _answers(model, task, splits, cache, inference):
        metrics[split] = kind.score(outputs, tokens)
    return metrics


def predict_rows(
    model: str, task: TaskSettings, split: str, *, cache: Path | None = None
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns the metrics of a model on a split, and its prediction for each row.

    Args:
        model: Folder or hub id.
        task: The task with data and metrics.
        split: 'dev' or 'test'.
        cache: Folder for tokenized data. Default: the user's cache.

    Returns:
        The metrics, and for each row its number from 1, its text, `label`, `prediction`, and more
        that depends on the kind of task, such as probabilities.

    Raises:
        SpecError: If the model or the data can't be loaded or do not fit together, or if the task
            has no predictions for rows.
    """
    kind = kind_of(task)
    check_predicts_rows(task)
    ((_, outputs, tokens),) = _answers(model, task, [split], cache, PLAIN)
    text = load_split(task, split, cache=cache)
    found = kind.predictions(outputs, tokens, text, label_names(task, cache=cache))
    pairs = [{}] * len(found) if text.pair is None else [{"pair": pair} for pair in text.pair]
    return kind.score(outputs, tokens), [
        {"row": row, "text": own, **pair, **predicted}
        for row, (own, pair, predicted) in enumerate(zip(text.text, pairs, found, strict=True), 1)
    ]


def check_predicts_rows(task: TaskSettings) -> None:
    """Checks that a task has predictions for the rows of its data.

    Raises:
        SpecError: If it has none.
    """
    if not KINDS[task.kind].has_labels:
        message = (
            f"{task.kind} has no predictions for rows of the data; use `evaluate` without "
            "--predictions"
        )
        raise SpecError(Problem("", "task.kind", message))


def _answers(
    model: str,
    task: TaskSettings,
    splits: Sequence[str],
    cache: Path | None,
    inference: Inference,
) -> Iterator[tuple[str, np.ndarray, Tokens]]:
    """Yields each split with the model's answers and its tokens."""
    kind = kind_of(task)
    loaded, tokenizer = load_for_inference(model, kind.head, inference), load_tokenizer(model)
    check_labels(loaded.config, model, task, cache=cache)
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with running(loaded, on, inference) as run:
        for split in splits:
            tokens = load_tokens(task, split, tokenizer, cache=cache)
            yield split, predict(run, kind, tokens, on), tokens


def check_labels(
    config: Any, model: str, task: TaskSettings, *, cache: Path | None = None
) -> int | None:
    """Returns the width of a task's output, after checking that a model has the same.

    Args:
        config: The model's configuration.
        model: Its folder or hub id.
        task: The task.
        cache: Folder for data.

    Returns:
        The width; None for the size of the vocabulary, which is not checked.

    Raises:
        SpecError: If the model has another width, or if the names of its classes or their order
            differ. Classes that have only numbers are not compared.
    """
    width = count_labels(task, cache=cache)
    if width is None:
        return None
    if config.num_labels != width:
        message = (
            f"{model} has {config.num_labels} classes, the task {task.name} has {width}; "
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
            difference = "has the classes of the task in another order"
            when = "contain the names of labels"
        else:
            difference = f"has other classes than the task, which has {', '.join(named)}"
            when = "contain the ids of these labels"
        message = (
            f"{model} {difference}: {', '.join(theirs)}; set task.labels to "
            f"[{', '.join(theirs)}] if the data {when}, or fine-tune another teacher"
        )
        raise SpecError(Problem("", "task.labels", message))
    return width
