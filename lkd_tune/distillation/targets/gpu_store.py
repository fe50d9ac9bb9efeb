"""Stored targets that are copied to a GPU as a whole, and unpacked there.

Unpacking on the host reads a batch example by example, and sends several times the stored size. For
a small student this takes longer than the rest of a training step.

B examples, N positions, T + 1 layers of the teacher (0 the embeddings).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lkd_tune.data.types import Batch, Tokens, to_device_async
from lkd_tune.distillation.targets.base import Maps
from lkd_tune.distillation.targets.store import StoredTargets
from lkd_tune.distillation.targets.store_format import LEVELS, triangle_index
from lkd_tune.distillation.targets.vectors import DeviceVectors, VectorPart, read_vectors
from lkd_tune.losses.inputs import Targets
from lkd_tune.losses.relations import LayerRelations, WordRelations

# The largest share of the GPU's memory for a store: each of the trials on a GPU has its own copy.
_MAX_GPU_SHARE = 1 / 64


def open_targets(
    folder: Path, tokens: Tokens, on: torch.device, vectors: Collection[VectorPart] = ()
) -> StoredTargets | DeviceTargets:
    """Returns the targets of a store, copied to the device if it is a GPU with enough memory.

    Arguments are those of `StoredTargets`.

    Raises:
        ValueError: If the store is missing or incomplete.
    """
    stored = StoredTargets(folder, tokens, on, vectors)
    if on.type != "cuda":
        return stored
    limit = _MAX_GPU_SHARE * torch.cuda.get_device_properties(on).total_memory
    return DeviceTargets(stored, on) if stored.bytes <= limit else stored


class DeviceTargets:
    """Reads the targets of a store, bit for bit, from the device's memory."""

    def __init__(self, stored: StoredTargets, on: torch.device):
        """Copies a store to a device."""
        self._on, self._layers, self._per_token = on, stored.layers, stored.per_token
        # PyTorch has few operations on uint16; the bits are the same.
        self._arrays = {
            name: torch.from_numpy(
                np.array(array.view(np.int16) if array.dtype == np.uint16 else array)
            ).to(on)
            for name, array in stored.arrays.items()
        }
        self._starts = {
            name: torch.from_numpy(starts[:-1]).to(on) for name, starts in stored.starts.items()
        }
        self._lengths = torch.from_numpy(stored.lengths.astype(np.int64)).to(on)
        words = torch.from_numpy(stored.starts["tokens"]).to(on)
        self._vectors = {
            part: DeviceVectors(vectors, words, on) for part, vectors in stored.vectors.items()
        }
        self._of_maps: dict[Maps, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, batch: Batch, maps: Maps) -> Targets:
        """Returns the targets of a batch, as `StoredTargets` does."""
        examples = to_device_async(torch.from_numpy(batch.examples.astype(np.int64)), self._on)
        sizes = self._lengths[examples]
        at = torch.arange(batch.mask.shape[1], device=self._on)
        real = at < sizes[:, None]
        where = (examples, sizes, real, at)
        return Targets(
            self._logits(examples, real, at),
            self._word_relations(*where, maps) if maps.word else None,
            self._layer_relations(*where, maps) if maps.layer else None,
            *read_vectors(self._vectors, examples, maps, len(at)),
        )

    def _word_relations(
        self, examples: Tensor, sizes: Tensor, real: Tensor, at: Tensor, maps: Maps
    ) -> WordRelations:
        words, _, _ = self._map_tensors(maps)
        start = self._starts["norms"][examples][:, None, None]
        index = start + words[:, None] * sizes[:, None, None] + at  # (B, L, N)
        return WordRelations(
            self._norms(index, real[:, None]), self._words(examples, words, sizes, real, at)
        )

    def _layer_relations(
        self, examples: Tensor, sizes: Tensor, real: Tensor, at: Tensor, maps: Maps
    ) -> LayerRelations:
        _, layers, pairs = self._map_tensors(maps)
        start = self._starts["norms"][examples][:, None, None]
        index = start + layers * sizes[:, None, None] + at[:, None]  # (B, N, L)
        return LayerRelations(
            self._norms(index, real[..., None]), self._across_layers(examples, pairs, real, at)
        )

    def _norms(self, index: Tensor, real: Tensor) -> Tensor:
        return torch.where(real, self._arrays["norms"][torch.where(real, index, 0)], 1.0)

    def _words(
        self, examples: Tensor, words: Tensor, sizes: Tensor, real: Tensor, at: Tensor
    ) -> Tensor:
        """Returns squared distances between words, (B, W, N, N)."""
        low, high = torch.minimum(at[:, None], at), torch.maximum(at[:, None], at)
        size = sizes[:, None, None]
        # The position of each pair in the upper triangle of an example's matrix, (B, N, N).
        place = low * (2 * size - low - 1) // 2 + high - low - 1
        kept = real[:, :, None] & real[:, None, :] & (low != high)
        triangle = (size * (size - 1) // 2)[..., None]
        start = self._starts["words"][examples][:, None, None, None]
        index = start + words[:, None, None] * triangle + place[:, None]
        scales = self._starts["word_scales"][examples][:, None] + words
        scale = self._arrays["word_scales"][scales][..., None, None]
        return self._distances("words", index, kept[:, None], scale)

    def _across_layers(self, examples: Tensor, pairs: Tensor, real: Tensor, at: Tensor) -> Tensor:
        """Returns squared distances between layers, (B, N, L, L)."""
        kept = real[..., None, None] & (pairs >= 0)
        triangle = self._layers * (self._layers - 1) // 2
        start = self._starts["layers"][examples][:, None] + at * triangle
        scales = torch.where(real, self._starts["layer_scales"][examples][:, None] + at, 0)
        scale = self._arrays["layer_scales"][scales][..., None, None]
        return self._distances("layers", start[..., None, None] + pairs, kept, scale)

    def _distances(self, name: str, index: Tensor, kept: Tensor, scale: Tensor) -> Tensor:
        """Returns unpacked squared distances, 0 where `kept` is False."""
        levels = self._arrays[name][torch.where(kept, index, 0)].int().bitwise_and(LEVELS)
        return torch.where(kept, levels.float() * (scale / LEVELS), 0.0).square()

    def _logits(self, examples: Tensor, real: Tensor, at: Tensor) -> Tensor:
        """Returns logits, shape (B, C), or padded with zeros (B, N, C)."""
        stored = self._arrays["logits"]
        if not self._per_token:
            return stored[examples]
        rows = torch.where(real, self._starts["tokens"][examples][:, None] + at, 0)
        return torch.where(real[..., None], stored[rows], 0.0)

    def _map_tensors(self, maps: Maps) -> tuple[Tensor, Tensor, Tensor]:
        """Returns both maps, and positions of the layer map's pairs in a triangle of all layers."""
        if maps not in self._of_maps:
            words, layers = list(maps.word), list(maps.layer)
            pairs = triangle_index(self._layers)[np.ix_(layers, layers)]
            self._of_maps[maps] = (
                torch.tensor(words, device=self._on),
                torch.tensor(layers, device=self._on),
                torch.from_numpy(pairs).to(self._on),
            )
        return self._of_maps[maps]
