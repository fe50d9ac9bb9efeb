"""How much each part of a teacher contributes on the task's text: one pass, once for all trials.

A channel's score is the root mean square of its activations times the norm of the weights that
read it, as Wanda scores single weights (Sun et al., arXiv:2306.11695). Activations are those of a
few training examples, as in Minitron (Muralidharan et al., arXiv:2407.14679).

L layers, H hidden size, I neurons of a feed-forward layer, A channels of all heads.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.config.settings.width import Width
from lkd_tune.data.types import Tokens
from lkd_tune.files.cache import get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.models.families import width_of
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import model_digest
from lkd_tune.models.placement import running
from lkd_tune.models.width.axes import Axes, Axis, Blocks

# Scores change little beyond a few hundred examples.
_MAX_EXAMPLES = 512
_BATCH_EXAMPLES = 16


@dataclass(frozen=True)
class Importance:
    """Scores of a teacher's parts; larger is more important.

    Attributes:
        hidden: Dimensions of the hidden states, shape (H,): how much they vary between words,
            averaged over all layers.
        query: Channels of queries and their keys, shape (L, A): how much they add to attention
            scores; before positions and norms within heads.
        value: Channels of values as each head sums them, shape (L, A): how much they add to the
            hidden states.
        neurons: Neurons of the feed-forward layers, shape (L, I): how much they add to the hidden
            states.
        pooled: Channels that the classifier reads behind a dense module, shape (H,); zeros where
            it reads hidden states.
    """

    hidden: np.ndarray
    query: np.ndarray
    value: np.ndarray
    neurons: np.ndarray
    pooled: np.ndarray


def load_importance(
    name: str,
    teacher: Any,
    tokens: Tokens,
    on: torch.device,
    cache: Path,
    inference: Inference = PLAIN,
) -> Importance:
    """Returns a teacher's scores on the training text, the same on every rank.

    Rank 0 measures or reads them and sends them to the others: if scores differed between nodes in
    the last bit, so would the students.

    Args:
        name: The teacher's folder or hub id, which identifies it in the cache.
        teacher: The model.
        tokens: The training split.
        on: Where the teacher runs.
        cache: Folder for the scores.
        inference: How the teacher runs.
    """
    found: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        found = [_load_or_measure(name, teacher, tokens, on, cache, inference)]
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0]


def _load_or_measure(
    name: str, teacher: Any, tokens: Tokens, on: torch.device, cache: Path, inference: Inference
) -> Importance:
    precision = ["bf16"] if inference.precision == "bf16" else []
    key = digest("importance-1", model_digest(name), tokens.key, _MAX_EXAMPLES, *precision)
    path = cache / "importance" / f"{key}.npz"

    def build(draft: Path) -> None:
        # Measuring changes the model, and students are made from it.
        own = teacher if inference.is_plain else copy.deepcopy(teacher)
        scores = measure_importance(own, tokens, on, inference)
        np.savez(draft, **{f.name: getattr(scores, f.name) for f in fields(scores)})

    get_or_build(path, build, "the importance scores")
    with np.load(path) as arrays:
        return Importance(**arrays)


def measure_importance(
    teacher: Any, tokens: Tokens, on: torch.device, inference: Inference = PLAIN
) -> Importance:
    """Returns a teacher's scores from up to 512 examples, evenly spaced over the split.

    Args:
        teacher: On the host; it is changed in place, as by `running`.
        tokens: The split.
        on: Where the teacher computes.
        inference: How the teacher runs.
    """
    sizes, width = _SquareSums(), width_of(teacher)
    hooks = _watch(Axes(teacher), width, sizes)
    hidden: torch.Tensor | None = None
    number = min(_MAX_EXAMPLES, len(tokens))
    chosen = np.linspace(0, len(tokens) - 1, number).astype(int)
    chosen = chosen[np.argsort(tokens.lengths[chosen], kind="stable")]
    try:
        # The hooks have read the weights before: in here they may be on another device.
        with running(teacher, on, inference) as run:
            for examples in np.array_split(chosen, -(-number // _BATCH_EXAMPLES)):
                batch = tokens.batch(examples, on)
                sizes.mask = batch.mask
                with torch.no_grad():
                    states = forward(run, batch, hidden_states=True).hidden_states
                # ELECTRA's embeddings may be narrower than its hidden states.
                states = [h[batch.mask] for h in states if h.shape[-1] == states[-1].shape[-1]]
                spread = torch.stack([h.std(0, correction=0).double() for h in states]).mean(0)
                hidden = spread if hidden is None else hidden + spread
    finally:
        for hook in hooks:
            hook.remove()
    assert hidden is not None
    pooled: _Key = ("pooled", None)
    layers = range(teacher.config.num_hidden_layers)
    return Importance(
        hidden=hidden.cpu().numpy(),
        query=np.stack([sizes.rms(("query", i)) * _for_each_head(sizes, i, width) for i in layers]),
        value=np.stack([sizes.score(("context", i)) for i in layers]),
        neurons=np.stack([sizes.score(("neurons", i)) for i in layers]),
        pooled=sizes.score(pooled) if pooled in sizes.norms else np.zeros(hidden.shape[0]),
    )


# An axis and its layer.
_Key = tuple[Axis, int | None]


def _for_each_head(sizes: _SquareSums, layer: int, width: Width) -> np.ndarray:
    """Returns the root mean square of the keys that each head reads, shape (A,)."""
    keys = sizes.rms(("key", layer)).reshape(-1, width.head_size)
    return keys.repeat(width.group, axis=0).reshape(-1)


class _SquareSums:
    """Sums of squared activations without padding, and norms of the weights that read them.

    Attributes:
        mask: True where a word of the current batch is real, shape (B, N).
        norms: Norm of each input channel's weights, shape (C,), of what is scored where it is
            read.
        written: What is scored where it is written.
    """

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None
        self.norms: dict[_Key, np.ndarray] = {}
        self.written: set[_Key] = set()
        self._sums: dict[_Key, torch.Tensor] = {}
        self._counts: dict[_Key, int] = {}

    def add(self, key: _Key, activations: torch.Tensor) -> None:
        """Adds activations, shape (B, N, C), or (B, C) for one vector per example."""
        assert self.mask is not None
        if activations.dim() == 3:
            if activations.shape[:2] != self.mask.shape:
                return  # not of words, but of DeBERTa's relative positions
            # Some classifiers select their word before their dense layer, others after it.
            activations = activations[self.mask]
        squares = activations.double().square().sum(0)
        self._sums[key] = self._sums[key] + squares if key in self._sums else squares
        self._counts[key] = self._counts.get(key, 0) + len(activations)

    def rms(self, key: _Key) -> np.ndarray:
        """Returns the root mean square of each channel, shape (C,)."""
        return (self._sums[key] / self._counts[key]).sqrt().cpu().numpy()

    def score(self, key: _Key) -> np.ndarray:
        """Returns how much each input channel adds to the output, shape (C,)."""
        return self.rms(key) * self.norms[key]


def _watch(axes: Axes, width: Width, sizes: _SquareSums) -> list[Any]:
    """Returns hooks that add the activations of all linear modules that are scored.

    Channels of contexts, neurons and pooled channels are scored where they are read, those of
    queries and keys where they are written.
    """
    hooks: list[Any] = []
    lengths = {"query": width.attention_size, "key": width.attention_size // width.group}
    for layer, module, writes, reads in axes.linears():
        key = (reads[0], layer) if reads else None
        if key is not None and key not in sizes.norms and _is_scored(writes, reads):
            sizes.norms[key] = module.weight.detach().double().norm(dim=0).cpu().numpy()
            hooks.append(module.register_forward_hook(_adder(sizes, key)))
        start = 0
        for axis in writes:
            if axis in lengths and (axis, layer) not in sizes.written:
                sizes.written.add((axis, layer))
                part = slice(start, start + lengths[axis])
                hooks.append(module.register_forward_hook(_adder(sizes, (axis, layer), part)))
            start += lengths.get(axis, 0)
    return hooks


def _is_scored(writes: Blocks, reads: Blocks) -> bool:
    return reads in (("context",), ("neurons",)) or (reads == ("pooled",) and not writes)


def _adder(sizes: _SquareSums, key: _Key, of_output: slice | None = None) -> Any:
    """Returns a hook that adds a module's input, or a part of its output."""

    def add(_: Any, inputs: Any, result: Any) -> None:
        sizes.add(key, inputs[0] if of_output is None else result[..., of_output])

    return add
