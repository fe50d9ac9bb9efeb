"""Running the teacher once over the training split, and storing its targets for all trials."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.targets.store_format import (
    FORMAT,
    INFO_FILE,
    TYPES,
    example_starts,
    is_complete,
    logit_rows,
    pack,
    target_bytes,
)
from lkd_tune.files.cache import get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.files.disk import IN_CACHE, disk_space_for
from lkd_tune.losses.relations import (
    LayerRelations,
    WordRelations,
    layer_relations,
    word_relations,
)
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import load_for_inference, model_digest
from lkd_tune.models.placement import running

# Tokens of a batch, padding included, that the teacher runs on at a time.
_BATCH_TOKENS = 4096


def store_folder(teacher: str, tokens: Tokens, cache: Path, inference: Inference = PLAIN) -> Path:
    """Returns the folder for the targets of a teacher on a split; it need not exist."""
    precision = ["bf16"] if inference.precision == "bf16" else []
    return cache / "targets" / digest(FORMAT, model_digest(teacher), tokens.key, *precision)


def get_or_build_store(
    teacher: str,
    tokens: Tokens,
    kind: Kind,
    on: torch.device,
    cache: Path,
    *,
    inference: Inference = PLAIN,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Returns the folder of a complete store, which is built if it does not exist.

    If several processes ask for it at the same time, one builds it and the others wait.

    Args:
        teacher: Folder or hub id.
        tokens: The training split.
        kind: The task's, which defines the logits that are stored.
        on: Where the teacher runs.
        cache: Folder for stores.
        inference: How the teacher runs.
        progress: Called with the number of examples done and their total.
    """
    folder = store_folder(teacher, tokens, cache, inference)

    def build(draft: Path) -> None:
        loaded = load_for_inference(teacher, kind.head, inference)
        with running(loaded, on, inference) as run:
            _build(draft, run, tokens, kind, on, progress)

    return get_or_build(folder, build, "the teacher's targets", is_complete=is_complete)


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
    starts = example_starts(tokens.lengths, layers)
    folder.mkdir()
    rows, classes = logit_rows(tokens, kind), teacher.config.num_labels
    size = target_bytes(tokens, layers, classes, kind) / 1e9
    with disk_space_for(f"{size:.2f} GB of the teacher's targets {IN_CACHE}", folder.parent):
        arrays = {
            name: _new_array(folder / f"{name}.npy", dtype, (int(starts[name][-1]),))
            for name, dtype in TYPES.items()
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
        _write(arrays, starts, examples, tokens.lengths, word, layer)
        done += len(examples)
        if progress is not None:
            progress(done, len(tokens))
    for array in (*arrays.values(), logits):
        array.flush()
    files = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    info = {
        "format": FORMAT,
        "layers": layers,
        "per_token": kind.per_token,
        "examples": len(tokens),
        "teacher_examples": done,
        "bytes": sum(files.values()),
        "build_s": time.perf_counter() - begin,
        "files": files,
    }
    (folder / INFO_FILE).write_text(json.dumps(info, indent=2), "utf-8")


def _new_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap:
    """Returns the array of a new file, whose disk space is allocated at once.

    A sparse file can be created on a full disk too; writing to its map would kill the process.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _write(
    arrays: Mapping[str, np.ndarray],
    starts: Mapping[str, np.ndarray],
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
        word_scale, word_levels = pack(words[row, :, :n, :n][:, upper[0], upper[1]])
        layer_scale, layer_levels = pack(layers[row, :n][:, across[0], across[1]])
        values = {
            "norms": norms[row, :, :n],
            "word_scales": word_scale,
            "words": word_levels,
            "layer_scales": layer_scale,
            "layers": layer_levels,
        }
        for name, value in values.items():
            start, end = starts[name][example : example + 2]
            arrays[name][start:end] = value.reshape(-1)


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
