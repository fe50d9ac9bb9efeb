"""A test whether a model can be made narrower, on a small copy with random weights.

If each part of the model is what `axes` takes it for, its parts can change their places without an
effect: hidden dimensions, neurons, groups of heads and, where heads may be smaller, the channels of
a head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.width import Width
from lkd_tune.models.families import resize_config
from lkd_tune.models.loading import load_config
from lkd_tune.models.small_copy import build_random, cannot_run, example_inputs, is_equal
from lkd_tune.models.width.axes import Axes, distinct_config, not_narrowed
from lkd_tune.models.width.pruning import Kept, keep_heads, take

_WORDS = 12


@lru_cache(maxsize=8)
def check_narrowing(model: str, head: str, *, pruned: bool = True) -> None:
    """Checks that narrower students can be made of a model.

    Args:
        model: Folder or hub id.
        head: As in transformers' AutoModelFor….
        pruned: Whether they are pruned from it; otherwise they get random weights.

    Raises:
        SpecError: If they can't, with the reason; or if there is no such model.
    """
    loaded = load_config(model)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        try:
            config, width = distinct_config(loaded)
            inputs = example_inputs(config, _WORDS)
            for narrow in _narrower(width):
                build_random(resize_config(config, narrow), head)(**inputs)
            problem = _find_problem(config, width, head) if pruned else None
        except SpecError as error:
            problem = error.problems[0].message.partition("narrower: ")[2].partition(";")[0]
            if not problem:
                raise
        except Exception as error:  # whatever a model of any family may raise
            problem = cannot_run(error)
    if problem is not None:
        raise not_narrowed(model, problem)


def _narrower(width: Width) -> list[Width]:
    """Returns widths that have less of everything: with fewer heads, and with smaller ones."""
    fewer = []
    for groups in (1, 2):
        heads = width.heads - groups * width.group
        hidden = width.hidden_size - 8 * groups if width.own_head_size else heads * width.head_size
        fewer.append(width.resized(hidden, heads, 24))
    smaller = [] if width.keeps_heads else [width.resized(width.hidden_size // 2, width.heads, 24)]
    return [each for each in (*fewer, *smaller) if each.hidden_size != width.embedding_size]


def _find_problem(config: Any, width: Width, head: str) -> str | None:
    """Returns what is wrong with copies of a model, None if nothing is."""
    model, inputs = build_random(config, head), example_inputs(config, _WORDS)
    with torch.no_grad():
        for weight in model.parameters():
            # In a new model norms are 1 and biases 0, wherever they belong to.
            weight.add_(torch.randn_like(weight) * 0.1)
        expected = model(**inputs, output_hidden_states=True)
    axes, rng = Axes(model), np.random.default_rng(0)
    order = _in_another_order(axes, width, width, config.num_hidden_layers, rng)
    with torch.no_grad():
        found = take(model, axes, width, order)(**inputs, output_hidden_states=True)
    if not is_equal(found[0], expected[0]):
        return "with its parts in another order it gives another output"
    hidden = torch.from_numpy(order["hidden", None])
    pairs = zip(found.hidden_states, expected.hidden_states, strict=True)
    if not all(is_equal(ours, theirs[..., hidden]) for ours, theirs in pairs):
        return "with its parts in another order it has other hidden states"
    for narrow in _narrower(width):
        part = _in_another_order(axes, width, narrow, config.num_hidden_layers, rng)
        take(model, axes, narrow, part)(**inputs)
    return None


def _in_another_order(
    axes: Axes, width: Width, narrow: Width, layers: int, rng: np.random.Generator
) -> Kept:
    """Returns random parts of a model in a random order."""

    def some(of: int, number: int) -> np.ndarray:
        return rng.permutation(of)[:number]

    groups = some(width.heads // width.group, narrow.heads // width.group)
    kept: Kept = {
        ("hidden", None): some(width.hidden_size, narrow.hidden_size),
        ("pooled", None): some(width.hidden_size, narrow.hidden_size),
    }
    for layer in range(layers):
        if not axes.share_heads:
            groups = some(width.heads // width.group, narrow.heads // width.group)
        whole = np.arange(width.head_size)[None].repeat(len(groups), axis=0)
        channels = [
            whole
            if width.keeps_heads
            else np.array([some(width.head_size, narrow.head_size) for _ in groups])
            for _ in range(2)
        ]
        kept["neurons", layer] = some(width.intermediate_size, narrow.intermediate_size)
        kept |= keep_heads(width, layer, groups, *channels)
    if axes.share_heads:
        kept["heads", None] = kept["heads", 0]
    return kept
