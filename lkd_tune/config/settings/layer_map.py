"""Layer maps: the teacher layer with which each student layer is compared.

A map has depth + 1 entries: entry i is the teacher layer for student layer i. Layer 0 is the
output of the embeddings, layer k that of the k-th encoder layer, as in `hidden_states`.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Literal

from lkd_tune.config.distributions import Suggester
from lkd_tune.config.settings.base import Settings

LayerMap = tuple[int, ...]

PRESETS = ("skip", "last", "first", "top_bottom", "lower_half")
SEARCHED = ("monotone", "free")
RANDOM = "random"
NAMED = (*PRESETS, RANDOM, *SEARCHED)
LayerMapName = Literal[
    "skip", "last", "first", "top_bottom", "lower_half", "random", "monotone", "free"
]
assert set(LayerMapName.__args__) == set(NAMED)  # type: ignore[attr-defined]


class LayerMapSettings(Settings):
    """Which teacher layers the student's layers are matched with. `layer_map: X` sets both maps."""

    word: LayerMapName | list[int] = "skip"
    """Map of the word relations: a preset (skip, last, first, top_bottom, lower_half), a list such
    as [0, 2, 4, 6], `random` (drawn in each step), or a searched map (monotone, free)."""
    layer: LayerMapName | list[int] | Literal["same"] = "same"
    """Map of the layer transforming relations; `same`: the map of the word relations."""
    pin_embeddings: bool = True
    """Match embeddings with embeddings, in random and searched maps."""
    pin_last: bool = True
    """Match the last layer with the teacher's last, in random and searched maps."""


def preset_map(name: str, teacher_layers: int, depth: int) -> LayerMap:
    """Returns the map of a preset.

    `skip` spaces layers evenly (12 -> 4: 0, 3, 6, 9, 12), rounded to the nearest layer where the
    depths share no divisor; the published rule collapses to (0, last) there. `last` and `first`
    take the embeddings and a block from the top or the bottom. `top_bottom` takes every k-th
    layer from both ends, k = teacher_layers // depth, so that 12 -> 6 is DistilBERT's choice
    1, 3, 5, 8, 10, 12 (its code counts from 0: 0, 2, 4, 7, 9, 11). `lower_half` takes the last
    layer and spaces the others evenly over the lower half of the teacher, or as much more as they
    need (12 -> 4: 0, 2, 4, 6, 12); which tasks it suits is in benchmarks/RESULTS.md.

    Raises:
        ValueError: If the name is not a preset or the depth is not in 1..teacher_layers.
    """
    _check_depth(teacher_layers, depth)
    if name == "skip":
        # + 0.5 and floor: Python's round() would send halves to the even neighbour.
        return tuple(math.floor(i * teacher_layers / depth + 0.5) for i in range(depth + 1))
    if name == "last":
        return (0, *range(teacher_layers - depth + 1, teacher_layers + 1))
    if name == "first":
        return tuple(range(depth + 1))
    if name == "top_bottom":
        stride, bottom = teacher_layers // depth, depth // 2
        lower = [1 + stride * i for i in range(bottom)]
        upper = [teacher_layers - stride * i for i in range(depth - bottom)]
        return (0, *lower, *reversed(upper))
    if name == "lower_half":
        half = max(teacher_layers // 2, depth - 1)
        spaced = preset_map("skip", half, depth - 1) if depth > 1 else (0,)
        return (*spaced, teacher_layers)
    raise ValueError(f"{name!r} is not a preset; presets: {', '.join(PRESETS)}")


def draw_monotone(
    suggester: Suggester,
    name: str,
    teacher_layers: int,
    depth: int,
    *,
    pin_embeddings: bool = True,
    pin_last: bool = True,
) -> LayerMap:
    """Returns a strictly increasing map; each admissible one has the same prior probability.

    Each teacher layer t has a key in [0, 1], `{name}.key.{t}`, and the layers with the largest
    keys are taken in order (random keys; Bean 1994). The names and ranges are the same for every
    depth, so that a sampler learns from all trials which teacher layers are worth matching, and
    every map that is drawn is admissible.

    Raises:
        ValueError: If the depth is not in 1..teacher_layers.
    """
    fixed, candidates = _pinned(teacher_layers, depth, pin_embeddings, pin_last)
    keys = {t: suggester.suggest_float(f"{name}.key.{t}", 0.0, 1.0) for t in candidates}
    chosen = sorted(candidates, key=lambda t: (-keys[t], t))[: depth + 1 - len(fixed)]
    return tuple(sorted([*fixed, *chosen]))


def draw_free(
    suggester: Suggester,
    name: str,
    teacher_layers: int,
    depth: int,
    *,
    pin_embeddings: bool = True,
    pin_last: bool = True,
) -> LayerMap:
    """Returns a map in which each student layer is matched with any teacher layer, in any order.

    Student layer i has the parameter `{name}.free.{i}`. Encoder layers of the student are never
    matched with the embeddings.

    Raises:
        ValueError: If the depth is not in 1..teacher_layers.
    """
    _check_depth(teacher_layers, depth)
    entries = [0 if pin_embeddings else suggester.suggest_int(f"{name}.free.0", 0, teacher_layers)]
    for i in range(1, depth + 1):
        if i == depth and pin_last:
            entries.append(teacher_layers)
        else:
            entries.append(suggester.suggest_int(f"{name}.free.{i}", 1, teacher_layers))
    return tuple(entries)


def draw_listed(
    suggester: Suggester,
    name: str,
    kind: str,
    teacher_layers: int,
    depth: int,
    *,
    pin_embeddings: bool = True,
    pin_last: bool = True,
) -> LayerMap:
    """Returns a map drawn by its index, for a sampler that tries each value once.

    The parameter `{name}.of.{depth}` is the index among all `monotone` maps of that depth. `free`
    maps have integer parameters already.
    """
    pins = {"pin_embeddings": pin_embeddings, "pin_last": pin_last}
    if kind == "free":
        return draw_free(suggester, name, teacher_layers, depth, **pins)
    fixed, candidates = _pinned(teacher_layers, depth, pin_embeddings, pin_last)
    maps = list(itertools.combinations(candidates, depth + 1 - len(fixed)))
    place = suggester.suggest_int(f"{name}.of.{depth}", 0, len(maps) - 1)
    return tuple(sorted([*fixed, *maps[place]]))


def params_of_map(
    kind: str,
    name: str,
    entries: Sequence[int],
    teacher_layers: int,
    depth: int,
    *,
    pin_embeddings: bool = True,
    pin_last: bool = True,
) -> dict[str, float] | None:
    """Returns parameters that give a `monotone` or `free` map; None if it can't be drawn."""
    if map_problem(entries, teacher_layers, depth) is not None:
        return None
    _, candidates = _pinned(teacher_layers, depth, pin_embeddings, pin_last)
    if (pin_embeddings and entries[0] != 0) or (pin_last and entries[-1] != teacher_layers):
        return None
    if kind == "monotone":
        if sorted({*entries}) != [*entries]:
            return None
        return {f"{name}.key.{t}": 0.75 if t in entries else 0.25 for t in candidates}
    last = depth if pin_last else depth + 1
    return {f"{name}.free.{i}": entries[i] for i in range(1 if pin_embeddings else 0, last)}


def random_map(
    seed: int,
    step: int,
    teacher_layers: int,
    depth: int,
    *,
    pin_embeddings: bool = True,
    pin_last: bool = True,
) -> LayerMap:
    """Returns the strictly increasing random map of one optimizer step.

    It depends only on seed and step, so that all ranks agree and a resumed trial continues with the
    same maps.

    Source: RAIL-KD (Haidar et al., 2022), random layers in each step.
    """
    fixed, candidates = _pinned(teacher_layers, depth, pin_embeddings, pin_last)
    chosen = random.Random(f"{seed}:{step}").sample(candidates, depth + 1 - len(fixed))
    return tuple(sorted([*fixed, *chosen]))


def count_maps(
    name: str,
    teacher_layers: int,
    depth: int,
    *,
    pin_embeddings: bool = True,
    pin_last: bool = True,
) -> int:
    """Returns the number of maps that a preset, `random`, `monotone` or `free` can give."""
    if name in PRESETS:
        return 1
    if name == "free":
        own = depth - (1 if pin_last else 0)
        return teacher_layers**own * (1 if pin_embeddings else teacher_layers + 1)
    fixed, candidates = _pinned(teacher_layers, depth, pin_embeddings, pin_last)
    return math.comb(len(candidates), depth + 1 - len(fixed))


def map_problem(entries: Sequence[int], teacher_layers: int, depth: int) -> str | None:
    """Returns why an explicit map is invalid, or None."""
    if len(entries) != depth + 1:
        return (
            f"{list(entries)} has {len(entries)} entries, a student of depth {depth} needs "
            f"{depth + 1}: one for the embeddings (layer 0) and one for each layer"
        )
    wrong = [layer for layer in entries if not 0 <= layer <= teacher_layers]
    if wrong:
        return (
            f"{list(entries)} names layer {wrong[0]}, the teacher has {teacher_layers} layers "
            f"(0 is the embeddings); use 0–{teacher_layers}"
        )
    if 0 in entries[1:]:
        return (
            f"{list(entries)} matches an encoder layer of the student with the teacher's "
            f"embeddings; use 1–{teacher_layers} after the first entry"
        )
    return None


def _pinned(
    teacher_layers: int, depth: int, pin_embeddings: bool, pin_last: bool
) -> tuple[list[int], list[int]]:
    """Returns the teacher layers that are in every map, and those that may be chosen."""
    _check_depth(teacher_layers, depth)
    fixed = ([0] if pin_embeddings else []) + ([teacher_layers] if pin_last else [])
    candidates = [layer for layer in range(teacher_layers + 1) if layer not in fixed]
    return fixed, candidates


def _check_depth(teacher_layers: int, depth: int) -> None:
    if not 1 <= depth <= teacher_layers:
        raise ValueError(f"depth {depth} is not in 1–{teacher_layers}, the teacher's layers")
