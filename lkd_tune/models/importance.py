"""How much each part of a teacher does on the task's text: one pass, once for all trials.

What a channel adds to the hidden states is the root mean square of its activations times the norm
of the weights that read it, as Wanda scores single weights (Sun et al., arXiv:2306.11695); parts
are scored by activations of a few training examples as in Minitron (Muralidharan et al.,
arXiv:2407.14679).

L layers, H hidden size, I neurons of a feed-forward layer.
"""

from __future__ import annotations

import copy
import re
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
from lkd_tune.models.loading import forward, model_digest
from lkd_tune.models.placement import running

# Scores change little beyond some hundred examples.
_EXAMPLES = 512
_BATCH = 16

_QUERY = re.compile(r"\.layer\.(\d+)\.attention\.(?:self\.query|q_lin)$")
_KEY = re.compile(r"\.layer\.(\d+)\.attention\.(?:self\.key|k_lin)$")
_CONTEXT = re.compile(r"\.layer\.(\d+)\.attention\.(?:output\.dense|out_lin)$")
_NEURONS = re.compile(r"\.layer\.(\d+)\.(?:output\.dense|ffn\.lin2)$")
_POOLED = re.compile(r"^classifier(?:\.out_proj)?$")


@dataclass(frozen=True)
class Importance:
    """Scores of a teacher's parts; larger is more important.

    Attributes:
        hidden: Dimensions of the hidden states, shape (H,): how much they vary between words,
            the mean over all layers.
        query: Channels of queries and keys, shape (L, H): how much they add to attention scores.
        value: Channels of values, shape (L, H): how much they add to the hidden states.
        neurons: Of the feed-forward layers, shape (L, I): the same.
        pooled: Channels of what the classifier reads, shape (H,); zeros where it reads hidden
            states.
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

    Rank 0 measures or reads them and sends them to the others: nodes whose scores differ in the
    last bit would start from different students.

    Args:
        name: The teacher's folder or hub id, which is what the cache goes by.
        teacher: The model.
        tokens: The training split.
        on: Where the teacher runs.
        cache: Folder that the scores are put in.
        inference: How the teacher is run.
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
    key = digest("importance-1", model_digest(name), tokens.key, _EXAMPLES, *precision)
    path = cache / "importance" / f"{key}.npz"

    def build(draft: Path) -> None:
        # Students are carved from the teacher as it is.
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
        inference: How the teacher is run.
    """
    sizes = _SquareSums()
    hooks = [
        *_watch(teacher, sizes, _QUERY, "query", output=True),
        *_watch(teacher, sizes, _KEY, "key", output=True),
        *_watch(teacher, sizes, _CONTEXT, "value"),
        *_watch(teacher, sizes, _NEURONS, "neurons"),
        *_watch(teacher, sizes, _POOLED, "pooled"),
    ]
    hidden: torch.Tensor | None = None
    number = min(_EXAMPLES, len(tokens))
    chosen = np.linspace(0, len(tokens) - 1, number).astype(int)
    chosen = chosen[np.argsort(tokens.lengths[chosen], kind="stable")]
    try:
        # The weights were looked at before: here they may be elsewhere.
        with running(teacher, on, inference) as run:
            for examples in np.array_split(chosen, -(-number // _BATCH)):
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
    query = [sizes.rms("query", i) * sizes.rms("key", i) for i in layers]
    width = hidden.shape[0]
    pooled = sizes.rms("pooled", -1) * sizes.norms["pooled", -1] if sizes.has("pooled") else None
    return Importance(
        hidden=hidden.cpu().numpy(),
        query=np.stack(query),
        value=np.stack([sizes.rms("value", i) * sizes.norms["value", i] for i in layers]),
        neurons=np.stack([sizes.rms("neurons", i) * sizes.norms["neurons", i] for i in layers]),
        pooled=np.zeros(width) if pooled is None else pooled,
    )


class _SquareSums:
    """Sums of squared activations by (kind, layer), padding left out."""

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None
        self.norms: dict[tuple[str, int], np.ndarray] = {}
        self._sums: dict[tuple[str, int], torch.Tensor] = {}
        self._counts: dict[tuple[str, int], int] = {}

    def add(self, key: tuple[str, int], activations: torch.Tensor) -> None:
        """Adds activations (B, N, C), or (B, C) of one vector for each example."""
        assert self.mask is not None
        if activations.dim() == 3:
            # Some classifiers take their word before, others after their dense layer.
            activations = activations[self.mask]
        squares = activations.double().square().sum(0)
        self._sums[key] = self._sums[key] + squares if key in self._sums else squares
        self._counts[key] = self._counts.get(key, 0) + len(activations)

    def has(self, kind: str) -> bool:
        return any(name == kind for name, _ in self._sums)

    def rms(self, kind: str, layer: int) -> np.ndarray:
        mean = self._sums[kind, layer] / self._counts[kind, layer]
        return mean.sqrt().cpu().numpy()


def _watch(
    model: Any, sizes: _SquareSums, pattern: re.Pattern[str], kind: str, *, output: bool = False
) -> list[Any]:
    """Returns hooks on the inputs, or the outputs, of all linear layers with such a name."""
    hooks = []
    for name, module in model.named_modules():
        match = pattern.search(name)
        if match is None or not isinstance(module, torch.nn.Linear):
            continue
        key = (kind, int(match[1]) if pattern.groups else -1)
        sizes.norms[key] = module.weight.detach().double().norm(dim=0).cpu().numpy()

        def note(_: Any, inputs: Any, result: Any, key: Any = key) -> None:
            sizes.add(key, result if output else inputs[0])

        hooks.append(module.register_forward_hook(note))
    return hooks
