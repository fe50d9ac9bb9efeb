"""The teacher's targets, computed once and read by every trial.

For one example all that the losses ask of the teacher are its logits, the norms of its hidden
states, and the distances between words in every layer and between layers at every word: whatever
layer map, window, temperature or weight a trial has. So the teacher runs once over the data, and
its targets lie in flat memory-mapped files, unpadded, upper triangles only.

A distance is kept as a 16-bit share of the largest in its triangle. Its error is at most 8e-6 of
that largest distance, below that of fp16 for all but the smallest distances, and there is nothing
to overflow.

E examples, n words of an example, T + 1 layers (0 the embeddings).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.settings.teacher import PLAIN, Inference, TargetSettings
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.distillation.targets.base import Maps
from lkd_tune.files.cache import get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.files.disk import IN_CACHE, room_for
from lkd_tune.losses.inputs import Targets
from lkd_tune.losses.relations import (
    LayerRelations,
    WordRelations,
    layer_relations,
    word_relations,
)
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import load_to_run, model_digest
from lkd_tune.models.placement import running

LEVELS = 65535
# Tokens of a batch, padding included, that the teacher runs on at a time.
_BATCH_TOKENS = 4096
_FORMAT = "targets-2"
_TYPES: dict[str, np.dtype[Any]] = {
    "norms": np.dtype(np.float32),
    "word_scales": np.dtype(np.float32),
    "words": np.dtype(np.uint16),
    "layer_scales": np.dtype(np.float32),
    "layers": np.dtype(np.uint16),
}


class StoredTargets:
    """Gives targets by reading them; holds no teacher.

    Attributes:
        arrays: The flat files by name, memory-mapped.
        starts: Where in each of them each example starts, shape (E + 1,).
        lengths: Words of each example.
        layers: The teacher's, with the embeddings.
        per_token: Whether logits are of words.
        bytes: The size of all files.
    """

    def __init__(self, folder: Path, tokens: Tokens, on: torch.device):
        """Opens a store.

        Raises:
            ValueError: If the store is not whole.
        """
        self._on, self.lengths = on, tokens.lengths
        facts = _verified(folder)
        self.layers, self.per_token = int(facts["layers"]), bool(facts["per_token"])
        self.bytes = int(facts["bytes"])
        self.starts = _Shape(self.lengths, self.layers).starts
        self.arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*_TYPES, "logits")
        }

    def __call__(self, batch: Batch, maps: Maps, *, relations: bool) -> Targets:
        """Returns the targets of a batch; as `LiveTeacher`, up to the precision of the store."""
        logits = torch.from_numpy(self._logits(batch)).to(self._on)
        if not relations:
            return Targets(logits, None, None)
        size, width = batch.mask.shape
        word_map, layer_map = (list(entries) for entries in maps)
        word = np.zeros((size, len(word_map), width, width), np.float32)
        word_norm = np.ones((size, len(word_map), width), np.float32)
        layer = np.zeros((size, width, len(layer_map), len(layer_map)), np.float32)
        layer_norm = np.ones((size, width, len(layer_map)), np.float32)
        # Where in a triangle of all layers the chosen pairs of layers lie.
        pairs = triangle_index(self.layers)[np.ix_(layer_map, layer_map)]
        for row, example in enumerate(batch.examples):
            n = int(self.lengths[example])
            norms = self._read("norms", example).reshape(self.layers, n)
            word_norm[row, :, :n] = norms[word_map]
            layer_norm[row, :n] = norms[layer_map].T
            triangles = self._read("words", example).reshape(self.layers, -1)[word_map]
            scale = self._read("word_scales", example)[word_map]
            word[row, :, :n, :n] = _unpack(triangles, scale, triangle_index(n))
            triangles = self._read("layers", example).reshape(n, -1)
            scale = self._read("layer_scales", example)
            layer[row, :n] = _unpack(triangles, scale, pairs)
        tensors = (torch.from_numpy(x).to(self._on) for x in (word_norm, word, layer_norm, layer))
        word_norms, words, layer_norms, layers = tensors
        return Targets(
            logits, WordRelations(word_norms, words), LayerRelations(layer_norms, layers)
        )

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


def target_bytes(tokens: Tokens, layers: int, classes: int, kind: Kind) -> int:
    """Returns the size that the targets of a split will have, `layers` with the embeddings."""
    starts = _Shape(tokens.lengths, layers).starts
    relations = sum(kept.itemsize * int(starts[name][-1]) for name, kept in _TYPES.items())
    return relations + 4 * _logit_rows(tokens, kind) * classes


def _logit_rows(tokens: Tokens, kind: Kind) -> int:
    return int(tokens.starts[-1]) if kind.per_token else len(tokens)


def stored_targets_fit(
    settings: TargetSettings, tokens: Tokens, layers: int, classes: int | None, kind: Kind
) -> bool:
    """Returns whether targets are to be stored: asked for, possible, and within their limit."""
    if kind.has_dynamic_inputs or classes is None:
        return False
    size = target_bytes(tokens, layers, classes, kind)
    return settings.source == "auto" and size <= settings.max_gb * 1e9


def store_folder(teacher: str, tokens: Tokens, cache: Path, inference: Inference = PLAIN) -> Path:
    """Returns where the targets of a teacher on a split lie, or will lie."""
    precision = ["bf16"] if inference.precision == "bf16" else []
    return cache / "targets" / digest(_FORMAT, model_digest(teacher), tokens.key, *precision)


def ensure_store(
    teacher: str,
    tokens: Tokens,
    kind: Kind,
    on: torch.device,
    cache: Path,
    *,
    inference: Inference = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Returns the folder of a whole store, building it if there is none.

    Of several processes that ask at the same time one builds and the others wait.

    Args:
        teacher: Folder or hub id.
        tokens: The training split.
        kind: The task's, which says what of the teacher's output is kept.
        on: Where the teacher runs.
        cache: Folder that the store is put in.
        inference: How the teacher is run.
        progress: Is told the number of examples done and their total.
    """
    folder = store_folder(teacher, tokens, cache, inference)

    def build(draft: Path) -> None:
        loaded = load_to_run(teacher, kind.head, inference)
        with running(loaded, on, inference) as run:
            _build(draft, run, tokens, kind, on, progress)

    return get_or_build(folder, build, "the teacher's targets", is_complete=_is_complete)


def _build(
    folder: Path,
    teacher: Any,
    tokens: Tokens,
    kind: Kind,
    on: torch.device,
    progress: Callable[[int, int], None] | None,
) -> None:
    begin = time.perf_counter()
    layers = teacher.config.num_hidden_layers + 1
    shape = _Shape(tokens.lengths, layers)
    folder.mkdir()
    rows, classes = _logit_rows(tokens, kind), teacher.config.num_labels
    size = target_bytes(tokens, layers, classes, kind) / 1e9
    with room_for(f"{size:.2f} GB of the teacher's targets {IN_CACHE}", folder.parent):
        arrays = {
            name: _new_array(folder / f"{name}.npy", dtype, (int(shape.starts[name][-1]),))
            for name, dtype in _TYPES.items()
        }
        logits = _new_array(folder / "logits.npy", np.dtype(np.float32), (rows, classes))
    done = 0
    for examples in _batches(tokens.lengths):
        batch = tokens.batch(examples, on)
        with torch.no_grad():
            output = forward(teacher, batch, hidden_states=True)
            hidden = torch.stack(output.hidden_states, dim=1)
            word = word_relations(hidden, batch.mask)
            layer = layer_relations(hidden, batch.mask)
        found = kind.logits(output).float().cpu().numpy()
        if kind.per_token:
            for row, example in enumerate(examples):
                own = slice(tokens.starts[example], tokens.starts[example + 1])
                logits[own] = found[row, : tokens.lengths[example]]
        else:
            logits[examples] = found
        _write(arrays, shape, examples, tokens.lengths, word, layer)
        done += len(examples)
        if progress is not None:
            progress(done, len(tokens))
    for array in (*arrays.values(), logits):
        array.flush()
    files = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    facts = {
        "format": _FORMAT,
        "layers": layers,
        "per_token": kind.per_token,
        "examples": len(tokens),
        "teacher_examples": done,
        "bytes": sum(files.values()),
        "build_s": time.perf_counter() - begin,
        "files": files,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2), "utf-8")


def _new_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap:
    """Returns a new file's array, whose room on the disk is taken at once.

    A file of holes would be made on a full disk, too, and writing to its map end the process.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _write(
    arrays: Mapping[str, np.ndarray],
    shape: _Shape,
    examples: np.ndarray,
    lengths: np.ndarray,
    word: WordRelations,
    layer: LayerRelations,
) -> None:
    norms = word.sq_norm.cpu().numpy()
    words, layers = word.sq_dist.sqrt().cpu().numpy(), layer.sq_dist.sqrt().cpu().numpy()
    for row, example in enumerate(examples):
        n = int(lengths[example])
        upper, across = np.triu_indices(n, 1), np.triu_indices(layers.shape[-1], 1)
        word_scale, word_levels = _pack(words[row, :, :n, :n][:, upper[0], upper[1]])
        layer_scale, layer_levels = _pack(layers[row, :n][:, across[0], across[1]])
        values = {
            "norms": norms[row, :, :n],
            "word_scales": word_scale,
            "words": word_levels,
            "layer_scales": layer_scale,
            "layers": layer_levels,
        }
        for name, value in values.items():
            starts = shape.starts[name]
            arrays[name][starts[example] : starts[example + 1]] = value.reshape(-1)


def _pack(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest of each row, and the row as 16-bit shares of it."""
    scale = distances.max(-1, initial=0.0)
    shares = distances / np.where(scale > 0, scale, 1.0)[:, None]
    # A distance that is not finite makes the scale so, which is enough to tell.
    levels = np.nan_to_num(np.round(shares * LEVELS))
    return scale.astype(np.float32), levels.astype(np.uint16)


def _unpack(levels: np.ndarray, scale: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns squared distances (rows, m, m) from triangles (rows, m (m − 1) / 2).

    `index` says where in a triangle each element is found, -1 for a zero.
    """
    zero = np.zeros((len(levels), 1), levels.dtype)
    distances = np.concatenate([levels, zero], axis=1)[:, index].astype(np.float32)
    distances *= (scale / LEVELS)[:, None, None]
    return np.square(distances, out=distances)


@lru_cache(maxsize=1024)
def triangle_index(size: int) -> np.ndarray:
    """Returns for each element of a symmetric matrix its place in the upper triangle, or -1."""
    index = np.full((size, size), -1)
    upper = np.triu_indices(size, 1)
    index[upper] = np.arange(len(upper[0]))
    return np.maximum(index, index.T)


class _Shape:
    """Where each example starts in each of the flat files: `starts[name]`, shape (E + 1,)."""

    def __init__(self, lengths: np.ndarray, layers: int):
        n = lengths.astype(np.int64)
        sizes = {
            "tokens": n,
            "norms": layers * n,
            "word_scales": np.full_like(n, layers),
            "words": layers * (n * (n - 1) // 2),
            "layer_scales": n,
            "layers": n * (layers * (layers - 1) // 2),
        }
        self.starts = {name: np.concatenate([[0], np.cumsum(size)]) for name, size in sizes.items()}


def _batches(lengths: np.ndarray) -> Sequence[np.ndarray]:
    """Returns examples of similar lengths in batches of about `_BATCH_TOKENS` tokens."""
    order = np.argsort(lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * lengths[order[end]] <= _BATCH_TOKENS:
            end += 1
        batches.append(order[start:end])
        start = end
    return batches


def read_facts(folder: Path) -> dict[str, Any]:
    """Returns a whole store's `examples`, `teacher_examples`, `bytes` and `build_s`.

    Raises:
        ValueError: If there is no whole store.
    """
    facts = _verified(folder)
    return {name: facts[name] for name in ("examples", "teacher_examples", "bytes", "build_s")}


def _is_complete(folder: Path) -> bool:
    try:
        _verified(folder)
    except ValueError:
        return False
    return True


def _verified(folder: Path) -> dict[str, Any]:
    """Returns the facts of a store whose files have the sizes they were written with.

    Raises:
        ValueError: If there is no store, or not all of it.
    """
    try:
        facts = json.loads((folder / "facts.json").read_text("utf-8"))
        found = {name: (folder / name).stat().st_size for name in facts["files"]}
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{folder} holds no whole targets: {error}") from None
    if found != facts["files"]:
        raise ValueError(f"{folder} holds files of other sizes than were written")
    return facts
