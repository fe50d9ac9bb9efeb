"""Targets read from a store, which every trial shares instead of running the teacher again.

B examples of a batch, N positions, C classes, E examples, T + 1 layers (0 the embeddings).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.settings.losses import Part
from lkd_tune.config.settings.teacher import TargetSettings
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.distillation.targets.base import Maps
from lkd_tune.distillation.targets.store_format import (
    TYPES,
    example_starts,
    read_info,
    target_bytes,
    triangle_index,
    unpack,
)
from lkd_tune.distillation.targets.vectors import (
    VECTOR_PARTS,
    StoredVectors,
    VectorPart,
    read_vectors,
    vector_bytes,
    vector_folder,
)
from lkd_tune.losses.inputs import Targets
from lkd_tune.losses.relations import LayerRelations, WordRelations


def parts_that_fit(
    settings: TargetSettings, tokens: Tokens, teacher: Any, classes: int | None, kind: Kind
) -> frozenset[Part]:
    """Returns the parts of the teacher's outputs that are stored if they are needed.

    That is none if targets are to be live or change from step to step. The parts are taken in a
    fixed order for as long as all of them are within the size limit, so that the trials of a search
    agree about them without knowing each other's terms.

    Args:
        settings: The limit, and whether targets may be stored.
        tokens: The training split.
        teacher: Its configuration.
        classes: Width of the logits; None for that of the vocabulary, which is never stored.
        kind: The task's.
    """
    if kind.has_dynamic_inputs or classes is None or settings.source == "live":
        return frozenset()
    fitting: set[Part] = set()
    for number in range(len(VECTOR_PARTS) + 1):
        vectors = VECTOR_PARTS[:number]
        if stored_bytes(vectors, tokens, teacher, classes, kind) <= settings.max_gb * 1e9:
            fitting |= {"logits", "word_relations", "layer_relations", *vectors}
    return frozenset(fitting)


def stored_bytes(
    vectors: Sequence[VectorPart], tokens: Tokens, teacher: Any, classes: int | None, kind: Kind
) -> int:
    """Returns the size of stored targets: those of relations and logits, and some vectors.

    Arguments are those of `parts_that_fit`.
    """
    assert classes is not None  # targets of the vocabulary's width are never stored
    layers, width = teacher.num_hidden_layers + 1, teacher.hidden_size
    size = target_bytes(tokens, layers, classes, kind)
    return size + sum(vector_bytes(part, tokens, layers, width) for part in vectors)


class StoredTargets:
    """Reads targets from a store.

    Attributes:
        arrays: The files by name, memory-mapped.
        starts: Where each example starts in each file, shape (E + 1,).
        lengths: Words of each example, shape (E,).
        layers: The teacher's, with the embeddings.
        per_token: Whether there are logits for each word.
        vectors: The stores of vectors beside it, by part.
        bytes: The size of all files, those of `vectors` included.
    """

    def __init__(
        self, folder: Path, tokens: Tokens, on: torch.device, vectors: Collection[VectorPart] = ()
    ):
        """Opens a store.

        Args:
            folder: The store of relations.
            tokens: The split.
            on: Where targets are used.
            vectors: The parts to read from stores of vectors beside it.

        Raises:
            ValueError: If a store is missing or incomplete.
        """
        self._on, self.lengths = on, tokens.lengths
        info = read_info(folder)
        self.layers, self.per_token = int(info["layers"]), bool(info["per_token"])
        self.vectors = {
            part: StoredVectors(vector_folder(folder, part), tokens, on) for part in vectors
        }
        self.bytes = int(info["bytes"]) + sum(each.bytes for each in self.vectors.values())
        self.starts = example_starts(self.lengths, self.layers)
        self.arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*TYPES, "logits")
        }

    def __call__(self, batch: Batch, maps: Maps) -> Targets:
        """Returns the targets of a batch: those of `LiveTeacher`, in the precision of the store."""
        return Targets(
            torch.from_numpy(self._logits(batch)).to(self._on),
            self._word_relations(batch, list(maps.word)) if maps.word else None,
            self._layer_relations(batch, list(maps.layer)) if maps.layer else None,
            *read_vectors(self.vectors, batch, maps, batch.mask.shape[1]),
        )

    def _word_relations(self, batch: Batch, layers: list[int]) -> WordRelations:
        size, width = batch.mask.shape
        distances = np.zeros((size, len(layers), width, width), np.float32)
        norms = np.ones((size, len(layers), width), np.float32)
        for row, example in enumerate(batch.examples):
            n = int(self.lengths[example])
            norms[row, :, :n] = self._read("norms", example).reshape(self.layers, n)[layers]
            triangles = self._read("words", example).reshape(self.layers, -1)[layers]
            scale = self._read("word_scales", example)[layers]
            distances[row, :, :n, :n] = unpack(triangles, scale, triangle_index(n))
        return WordRelations(*(torch.from_numpy(x).to(self._on) for x in (norms, distances)))

    def _layer_relations(self, batch: Batch, layers: list[int]) -> LayerRelations:
        size, width = batch.mask.shape
        distances = np.zeros((size, width, len(layers), len(layers)), np.float32)
        norms = np.ones((size, width, len(layers)), np.float32)
        # Positions of the mapped pairs of layers in a triangle of all layers.
        pairs = triangle_index(self.layers)[np.ix_(layers, layers)]
        for row, example in enumerate(batch.examples):
            n = int(self.lengths[example])
            norms[row, :n] = self._read("norms", example).reshape(self.layers, n)[layers].T
            triangles = self._read("layers", example).reshape(n, -1)
            scale = self._read("layer_scales", example)
            distances[row, :n] = unpack(triangles, scale, pairs)
        return LayerRelations(*(torch.from_numpy(x).to(self._on) for x in (norms, distances)))

    def _logits(self, batch: Batch) -> np.ndarray:
        """Returns logits, shape (B, C), or padded with zeros (B, N, C)."""
        stored = self.arrays["logits"]
        if not self.per_token:
            return stored[batch.examples]
        starts = self.starts["tokens"]
        logits = np.zeros((*batch.mask.shape, stored.shape[1]), np.float32)
        for row, example in enumerate(batch.examples):
            own = stored[starts[example] : starts[example + 1]]
            logits[row, : len(own)] = own
        return logits

    def _read(self, name: str, example: int) -> np.ndarray:
        starts = self.starts[name]
        return np.asarray(self.arrays[name][starts[example] : starts[example + 1]])
