"""How much each part of a teacher contributes on the task's text: one pass, once for all trials.

A channel's score is the root mean square of its activations times the norm of the weights that
read it, as Wanda scores single weights (Sun et al., arXiv:2306.11695). Activations are those of a
few training examples, as in Minitron (Muralidharan et al., arXiv:2407.14679).

L layers, H hidden size, I neurons of a feed-forward layer.
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
from lkd_tune.data.types import Tokens
from lkd_tune.files.cache import get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.models.families import Structure
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import model_digest
from lkd_tune.models.placement import running

# Scores change little beyond a few hundred examples.
_MAX_EXAMPLES = 512
_BATCH_EXAMPLES = 16


@dataclass(frozen=True)
class Importance:
    """Scores of a teacher's parts; larger is more important.

    Attributes:
        hidden: Dimensions of the hidden states, shape (H,): how much they vary between words,
            averaged over all layers.
        query: Channels of queries and keys, shape (L, H): how much they add to attention scores.
        value: Channels of values, shape (L, H): how much they add to the hidden states.
        neurons: Neurons of the feed-forward layers, shape (L, I): how much they add to the hidden
            states.
        pooled: Channels of the classifier's input, shape (H,); zeros where that are hidden states.
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
    sizes, structure = _SquareSums(), Structure(teacher)
    # Values, neurons and pooled channels are scored where they are read.
    hooks = [
        *_watch(structure, sizes, "query", output=True),
        *_watch(structure, sizes, "key", output=True),
        *_watch(structure, sizes, "attention_output"),
        *_watch(structure, sizes, "feed_forward_output"),
        *_watch(structure, sizes, "classifier"),
    ]
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
    layers = range(teacher.config.num_hidden_layers)
    pooled = ("classifier", None)
    return Importance(
        hidden=hidden.cpu().numpy(),
        query=np.stack([sizes.rms(("query", i)) * sizes.rms(("key", i)) for i in layers]),
        value=np.stack([sizes.score(("attention_output", i)) for i in layers]),
        neurons=np.stack([sizes.score(("feed_forward_output", i)) for i in layers]),
        pooled=sizes.score(pooled) if pooled in sizes.norms else np.zeros(hidden.shape[0]),
    )


# A module's role and its layer.
_Key = tuple[str, int | None]


class _SquareSums:
    """Sums of squared activations without padding, and norms of the weights that read them.

    Attributes:
        mask: True where a word of the current batch is real, shape (B, N).
        norms: Norm of each input channel's weights, shape (C,).
    """

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None
        self.norms: dict[_Key, np.ndarray] = {}
        self._sums: dict[_Key, torch.Tensor] = {}
        self._counts: dict[_Key, int] = {}

    def add(self, key: _Key, activations: torch.Tensor) -> None:
        """Adds activations, shape (B, N, C), or (B, C) for one vector per example."""
        assert self.mask is not None
        if activations.dim() == 3:
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


def _watch(
    structure: Structure, sizes: _SquareSums, role: str, *, output: bool = False
) -> list[Any]:
    """Returns hooks that add the inputs, or the outputs, of all linear layers with a role."""
    hooks = []
    for layer, module in structure.linears(role):
        key = (role, layer)
        sizes.norms[key] = module.weight.detach().double().norm(dim=0).cpu().numpy()

        def add(_: Any, inputs: Any, result: Any, key: _Key = key) -> None:
            sizes.add(key, result if output else inputs[0])

        hooks.append(module.register_forward_hook(add))
    return hooks
