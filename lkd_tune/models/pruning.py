"""A narrower copy of a model: its most important heads, neurons and hidden dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.width import Width
from lkd_tune.models.families import AXES, Axis, Structure, resize_config, width_in
from lkd_tune.models.importance import Importance
from lkd_tune.models.loading import read_config

# The indices to keep by axis and layer; None for what lies outside the layers.
Kept = dict[tuple[Axis, int | None], np.ndarray]


def read_width(model: str) -> Width:
    """Returns the width of a model folder or hub id.

    Raises:
        SpecError: If there is no such model, or its configuration has no width.
    """
    return width_in(read_config(model), model)


def width_of(model: Any) -> Width:
    """Returns a model's width."""
    return width_of_config(model.config)


def width_of_config(config: Any) -> Width:
    """Returns the width in a configuration."""
    return width_in(config.to_dict(), type(config).__name__)


def prune_width(model: Any, width: Width, importance: Importance) -> Any:
    """Returns a narrower copy of a model that keeps all layers and the most important parts.

    Heads of unchanged size are kept as a whole. Smaller heads keep their most important channels,
    and queries are scaled so that attention scores stay what they were.

    Args:
        model: A model of the supported families, with any head.
        width: Of the copy; no size is above the model's.
        importance: Scores of the model's parts.

    Raises:
        SpecError: If the model has weights that none of the supported families has.
    """
    full, structure, weights = width_of(model), Structure(model), model.state_dict()
    roles = {name: structure.role_of(name) for name in weights}
    pools = "pooler" in roles.values()
    projects = "embedding_projection" in roles.values()
    if projects and width.hidden_size == model.config.embedding_size:
        # ELECTRA has no projection where the two sizes are equal.
        message = (
            f"{width.hidden_size} is the size of the teacher's embeddings, which are projected to "
            "its hidden states; use another size"
        )
        raise SpecError(Problem("", "student.hidden_size", message))
    kept = _keep(full, width, importance)
    scale = (width.head_size / full.head_size) ** 0.5

    def index(axis: Axis, layer: int | None) -> np.ndarray | None:
        if axis == "embedding":
            return None if projects else kept["hidden", None]
        if axis == "pooled" and not pools:
            return kept["hidden", None]
        return kept.get((axis, layer), kept.get((axis, None)))

    pruned = {}
    for name, tensor in weights.items():
        layer = structure.layer_of(name)
        for dim, axis in enumerate(AXES[roles[name]][: tensor.dim()]):
            chosen = index(axis, layer) if axis else None
            if chosen is not None:
                tensor = tensor.index_select(dim, torch.from_numpy(chosen).to(tensor.device))
        if scale != 1 and roles[name] == "query":
            tensor = tensor * scale
        pruned[name] = tensor
    copied = type(model)(resize_config(model.config, width))
    copied.load_state_dict(pruned)
    return copied.eval()


def _keep(full: Width, width: Width, importance: Importance) -> Kept:
    kept: Kept = {
        ("hidden", None): _largest(importance.hidden, width.hidden_size),
        ("pooled", None): _largest(importance.pooled, width.hidden_size),
    }
    for layer in range(len(importance.value)):
        kept["neurons", layer] = _largest(importance.neurons[layer], width.intermediate_size)
        value = importance.value[layer].reshape(full.heads, full.head_size)
        query = importance.query[layer].reshape(full.heads, full.head_size)
        heads = _largest(np.square(value).sum(-1), width.heads)
        kept["value", layer], kept["query", layer] = (
            np.concatenate(
                [h * full.head_size + _largest(scores[h], width.head_size) for h in heads]
            )
            for scores in (value, query)
        )
    return kept


def _largest(scores: np.ndarray, number: int) -> np.ndarray:
    """Returns the indices of the largest scores in ascending order; ties keep the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:number])
