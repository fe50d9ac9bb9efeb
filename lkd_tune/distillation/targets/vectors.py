"""Stores of vectors of the teacher: hidden states, and queries, keys and values.

Each part has a store of its own beside that of the relations, so that it is built only where a
trial can read it. An element of a vector is stored as a 16-bit share of the vector's largest
absolute value. The error is at most 1.6e-5 of that largest value, and no value can overflow.

An example with n words has R rows of n vectors each: a row for each layer of hidden states, or for
the queries, the keys and the values of each layer.

B examples of a batch, N positions, M words that are read (N, or 1), E examples of the split, A
elements of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lkd_tune.data.types import Batch, Tokens
from lkd_tune.distillation.targets.base import Maps
from lkd_tune.distillation.targets.store_format import new_array, read_info, write_info
from lkd_tune.files.disk import IN_CACHE, disk_space_for
from lkd_tune.losses.attention import AttentionVectors
from lkd_tune.losses.inputs import Targets

VectorPart = Literal["hidden_states", "attention"]
VECTOR_PARTS: tuple[VectorPart, ...] = ("hidden_states", "attention")
# Part of a folder's name, beside the key of the store of relations.
_FORMAT = 1
# The largest 16-bit share.
_LEVELS = 32767


def vector_folder(relations: Path, part: VectorPart) -> Path:
    """Returns the folder of a part, beside the folder of the relations of the same teacher."""
    return relations.with_name(f"{relations.name}-{part}-{_FORMAT}")


def vector_rows(part: VectorPart, layers: int) -> int:
    """Returns R.

    Args:
        part: The part.
        layers: The teacher's, with the embeddings.
    """
    return layers if part == "hidden_states" else 3 * (layers - 1)


def vector_bytes(part: VectorPart, tokens: Tokens, layers: int, width: int) -> int:
    """Returns the size of a store; arguments as `vector_rows`, and A."""
    return vector_rows(part, layers) * int(tokens.starts[-1]) * (2 * width + 4)


class VectorWriter:
    """Writes a store while the teacher runs over a split.

    Args:
        folder: Is created.
        part: The part.
        tokens: The split.
        layers: The teacher's, with the embeddings.
        width: A.
        heads: The teacher's attention heads.
    """

    def __init__(
        self, folder: Path, part: VectorPart, tokens: Tokens, layers: int, width: int, heads: int
    ):
        folder.mkdir()
        self._folder, self._part, self._tokens = folder, part, tokens
        self._rows, self._heads = vector_rows(part, layers), heads
        total, size = self._rows * int(tokens.starts[-1]), vector_bytes(part, tokens, layers, width)
        what = f"{size / 1e9:.2f} GB of the teacher's targets {IN_CACHE}"
        with disk_space_for(what, folder.parent):
            self._scales = new_array(folder / "scales.npy", np.dtype(np.float32), (total,))
            self._levels = new_array(folder / "levels.npy", np.dtype(np.int16), (total, width))

    def write(self, examples: np.ndarray, targets: Targets) -> None:
        """Writes the vectors of some examples, which `targets` holds for all layers."""
        if self._part == "hidden_states":
            assert targets.hidden_states is not None
            rows = targets.hidden_states
        else:
            assert targets.attention is not None
            query, key, value, _ = targets.attention
            rows = tuple(side for layer in zip(query, key, value, strict=True) for side in layer)
        scales, levels = (x.cpu().numpy() for x in _pack(torch.stack(rows, dim=1).float()))
        for row, example in enumerate(examples):
            start, end = (int(place) for place in self._tokens.starts[example : example + 2])
            own = slice(self._rows * start, self._rows * end)
            self._scales[own] = scales[row, :, : end - start].reshape(-1)
            self._levels[own] = levels[row, :, : end - start].reshape(-1, levels.shape[-1])

    def close(self, info: dict[str, Any]) -> None:
        """Writes what `StoredVectors` reads about the store: `info` and more."""
        self._scales.flush()
        self._levels.flush()
        write_info(self._folder, {**info, "rows": self._rows, "heads": self._heads})


class StoredVectors:
    """Reads a store.

    Attributes:
        arrays: The files by name, memory-mapped.
        rows, heads: R, and the teacher's attention heads.
        bytes: The size of all files.
    """

    def __init__(self, folder: Path, tokens: Tokens, on: torch.device):
        """Opens a store.

        Raises:
            ValueError: If the store is missing or incomplete.
        """
        info = read_info(folder)
        self._on, self._starts = on, tokens.starts
        self.rows, self.heads, self.bytes = (int(info[key]) for key in ("rows", "heads", "bytes"))
        self.arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("scales", "levels")
        }

    def read(self, batch: Batch, rows: Sequence[int], words: int) -> Tensor:
        """Returns some rows of the vectors of the first words, (B, rows, M, A); 0 in padding."""
        scales, levels = self.arrays["scales"], self.arrays["levels"]
        found = np.zeros((len(batch.examples), len(rows), words, levels.shape[-1]), np.float32)
        chosen = list(rows)
        for number, example in enumerate(batch.examples):
            start, end = (self.rows * int(place) for place in self._starts[example : example + 2])
            share = scales[start:end].reshape(self.rows, -1)[chosen, :words] / np.float32(_LEVELS)
            own = levels[start:end].reshape(self.rows, -1, levels.shape[-1])[chosen, :words]
            np.multiply(own, share[..., None], out=found[number, :, : share.shape[1]])
        return torch.from_numpy(found).to(self._on)


class DeviceVectors:
    """Reads the vectors of a store, bit for bit, from the device's memory.

    Args:
        stored: The store.
        starts: Where the words of each example start, (E + 1,), on the device.
        on: The device.
    """

    def __init__(self, stored: StoredVectors, starts: Tensor, on: torch.device):
        self._on, self._starts = on, starts
        self.rows, self.heads = stored.rows, stored.heads
        self._scales, self._levels = (
            torch.from_numpy(np.array(stored.arrays[name])).to(on) for name in ("scales", "levels")
        )
        self._row_tensors: dict[tuple[int, ...], Tensor] = {}

    def read(self, examples: Tensor, rows: Sequence[int], words: int) -> Tensor:
        """Returns what `StoredVectors` does, for the indices of examples on the device."""
        key = tuple(rows)
        if key not in self._row_tensors:
            self._row_tensors[key] = torch.tensor(key, device=self._on)
        chosen = self._row_tensors[key]
        at = torch.arange(words, device=self._on)
        start = self._starts[examples][:, None, None]
        length = self._starts[examples + 1][:, None, None] - start
        real = at < length
        index = torch.where(real, self.rows * start + chosen[:, None] * length + at, 0)
        share = torch.where(real, self._scales[index] / _LEVELS, 0.0)
        return self._levels[index] * share[..., None]


def read_vectors(
    stores: Mapping[VectorPart, Any], examples: Any, maps: Maps, positions: int
) -> tuple[tuple[Tensor, ...] | None, AttentionVectors | None]:
    """Returns the hidden states, and the queries, keys and values, that are compared in a step.

    Args:
        stores: `StoredVectors` or `DeviceVectors` by part; with each part that is compared.
        examples: As `read` of these takes it.
        maps: The layers. No others are read.
        positions: N.
    """
    hidden, attention = None, None
    if maps.hidden:
        words = 1 if maps.first_word else positions
        hidden = stores["hidden_states"].read(examples, maps.hidden, words).unbind(1)
    if maps.attention:
        store, layers = stores["attention"], len(maps.attention)
        rows = [3 * (layer - 1) + side for side in range(3) for layer in maps.attention]
        found = store.read(examples, rows, positions).unbind(1)
        query, key, value = (found[layers * side : layers * (side + 1)] for side in range(3))
        attention = AttentionVectors(query, key, value, store.heads)
    return hidden, attention


def _pack(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest absolute value of each vector, and the vectors as shares of it."""
    scale = vectors.abs().amax(-1)
    shares = vectors / torch.where(scale > 0, scale, 1.0)[..., None]
    # A value that is not finite makes the scale not finite, so the loss shows it.
    return scale, shares.mul(_LEVELS).round().nan_to_num(0.0, 0.0, 0.0).to(torch.int16)
