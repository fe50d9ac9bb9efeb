"""Scoring a model on a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.distill.models import forward, load_classifier, load_tokenizer
from lkd_tune.distill.tasks.data import count_labels
from lkd_tune.distill.tasks.metrics import score_predictions
from lkd_tune.distill.tokens import Tokens, load_tokens
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.settings import TaskSettings

_BATCH = 128


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
    outputs = predict(model, tokens, on, cut=cut)
    return score_predictions(task, outputs, tokens.labels)


def predict(model: Any, tokens: Tokens, on: torch.device, *, cut: int = 1) -> np.ndarray:
    """Returns the logits for all examples, float32, shape (examples, classes)."""
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
            logits = forward(model, tokens.batch(examples, on), hidden_states=False).logits
            parts.append((examples, logits.float().cpu().numpy()))
    model.train(training)
    if world > 1:
        gathered: list[Any] = [None] * world
        dist.all_gather_object(gathered, parts)
        parts = [part for rank_parts in gathered for part in rank_parts]
    outputs = np.empty((len(tokens), parts[0][1].shape[1]), np.float32)
    for examples, logits in parts:
        outputs[examples] = logits
    return outputs


def evaluate_model(
    model: str,
    task: TaskSettings,
    *,
    splits: Sequence[str] = ("dev",),
    cache: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Returns the metrics of a model folder or hub id on each split: {"dev": {…}, …}.

    Raises:
        SpecError: If the model or the data can't be had or do not fit together.
    """
    classifier, tokenizer = load_classifier(model), load_tokenizer(model)
    labels = count_labels(task)
    if classifier.config.num_labels != labels:
        message = f"{model} tells {classifier.config.num_labels} classes apart, the task {labels}"
        raise SpecError(Problem("", "task", message))
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier.to(on)
    results = {}
    for split in splits:
        tokens = load_tokens(task, split, tokenizer, cache=cache)
        results[split] = score_predictions(task, predict(classifier, tokens, on), tokens.labels)
    return results
