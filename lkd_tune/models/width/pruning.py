"""A narrower copy of a model: its most important heads, neurons and hidden dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lkd_tune.config.settings.width import Width
from lkd_tune.models.families import resize_config, width_of
from lkd_tune.models.width.axes import Axes, Axis, Blocks, not_narrowed
from lkd_tune.models.width.importance import Importance

# The indices to keep by axis and layer; None for what lies outside the layers.
Kept = dict[tuple[Axis, int | None], np.ndarray]


def prune_width(model: Any, width: Width, importance: Importance) -> Any:
    """Returns a narrower copy of a model that keeps all layers and the most important parts.

    Heads of unchanged size are kept as a whole, and so are groups of heads that share keys and
    values. Smaller heads keep their most important channels.

    Args:
        model: With any head.
        width: Of the copy; no size is above the model's.
        importance: Scores of the model's parts.

    Raises:
        SpecError: If the model can't be pruned.
    """
    axes, full = Axes(model), width_of(model)
    width = full.resized(**width.sizes())  # heads are as the model has them
    groups, per_group = full.heads // full.group, (full.group, full.head_size)
    # By layer: how much each channel of queries, and of contexts, matters.
    query, context = (
        np.square(scores).reshape(-1, groups, *per_group).sum(2)
        for scores in (importance.query, importance.value)
    )
    size_of_group = context.sum(-1)
    if axes.share_heads:
        size_of_group = np.broadcast_to(size_of_group.sum(0), size_of_group.shape)
    kept: Kept = {
        ("hidden", None): _largest(importance.hidden, width.hidden_size),
        ("pooled", None): _largest(importance.pooled, width.hidden_size),
    }
    for layer, sizes in enumerate(size_of_group):
        chosen = _largest(sizes, width.heads // full.group)
        kept["neurons", layer] = _largest(importance.neurons[layer], width.intermediate_size)
        kept |= keep_heads(
            full,
            layer,
            chosen,
            np.array([_largest(query[layer, group], width.head_size) for group in chosen]),
            np.array([_largest(context[layer, group], width.head_size) for group in chosen]),
        )
    if axes.share_heads:
        kept["heads", None] = kept["heads", 0]
    return take(model, axes, width, kept)


def keep_heads(
    full: Width, layer: int, groups: np.ndarray, query: np.ndarray, value: np.ndarray
) -> Kept:
    """Returns what is kept of a layer's attention.

    Args:
        full: The model's width.
        layer: The layer, 0 is the first.
        groups: The groups of heads that share keys and values, in the order of the copy.
        query: For each of them the channels of a query that are kept, shape (groups, channels).
        value: The same for values.
    """
    heads = (groups[:, None] * full.group + np.arange(full.group)).reshape(-1)

    def channels(of: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return (of[:, None] * full.head_size + chosen).reshape(-1)

    return {
        ("heads", layer): heads,
        ("query", layer): channels(heads, query.repeat(full.group, axis=0)),
        ("context", layer): channels(heads, value.repeat(full.group, axis=0)),
        ("key", layer): channels(groups, query),
        ("value", layer): channels(groups, value),
    }


def take(model: Any, axes: Axes, width: Width, kept: Kept) -> Any:
    """Returns a copy of a model with some of its parts, in any order.

    Queries and keys of smaller heads are scaled so that attention scores stay what they were.

    Args:
        model: The model.
        axes: Of its weights.
        width: Of the copy.
        kept: Its parts.

    Raises:
        SpecError: If the copy has other weights.
    """
    full = width_of(model)
    scale = (width.head_size / full.head_size) ** 0.25
    sizes: dict[Axis, int] = {
        "hidden": full.hidden_size,
        "pooled": full.hidden_size,
        "query": full.attention_size,
        "key": full.attention_size // full.group,
        "value": full.attention_size // full.group,
        "context": full.attention_size,
        "heads": full.heads,
        "neurons": full.intermediate_size,
    }

    def index(blocks: Blocks, layer: int | None) -> np.ndarray:
        starts = np.cumsum([0, *(sizes[axis] for axis in blocks)])
        parts = (kept.get((axis, layer), kept.get((axis, None))) for axis in blocks)
        return np.concatenate([start + part for start, part in zip(starts, parts, strict=False)])

    pruned = {}
    for name, tensor in model.state_dict().items():
        layer, dims = axes.layer_of(name), axes.of(name)
        for dim, blocks in enumerate(dims):
            if blocks:
                chosen = torch.from_numpy(index(blocks, layer)).to(tensor.device)
                tensor = tensor.index_select(dim, chosen)
        if scale != 1 and {"query", "key"} & {*dims[0]}:
            tensor = tensor * scale
        pruned[name] = tensor
    copied = type(model)(resize_config(model.config, width))
    own = copied.state_dict()
    for name in own.keys() | pruned.keys():
        shapes = [
            tuple(weights[name].shape) if name in weights else None for weights in (pruned, own)
        ]
        if shapes[0] != shapes[1]:
            why = f"its weight {name} does not follow its width"
            raise not_narrowed(model, why)
    copied.load_state_dict(pruned)
    return copied.eval()


def _largest(scores: np.ndarray, number: int) -> np.ndarray:
    """Returns the indices of the largest scores in ascending order; ties keep the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:number])
