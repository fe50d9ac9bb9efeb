"""The files of a store of the teacher's targets: their layout, and how distances are packed.

For each example the losses need the teacher's logits, the norms of its hidden states, and the
distances between words in every layer and between layers at every word. These serve any layer map,
window, temperature and weight. The files are flat and memory-mapped, without padding, and hold
upper triangles only.

A distance is stored as a 16-bit share of the largest one in its triangle. The error is at most 8e-6
of that largest distance, which is less than the error of fp16 for all but the smallest distances,
and no value can overflow.

E examples, n words of an example, T + 1 layers (0 the embeddings).
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Tokens

FORMAT = "targets-2"
INFO_FILE = "facts.json"
# The largest 16-bit share.
LEVELS = 65535
# The type of each file of relations; logits have one more file, of float32.
TYPES: dict[str, np.dtype[Any]] = {
    "norms": np.dtype(np.float32),
    "word_scales": np.dtype(np.float32),
    "words": np.dtype(np.uint16),
    "layer_scales": np.dtype(np.float32),
    "layers": np.dtype(np.uint16),
}


def example_starts(lengths: np.ndarray, layers: int) -> dict[str, np.ndarray]:
    """Returns where each example starts in each file, shape (E + 1,).

    `tokens` is the file of logits, if they are those of words.

    Args:
        lengths: Words of each example, shape (E,).
        layers: The teacher's, with the embeddings.
    """
    n = lengths.astype(np.int64)
    sizes = {
        "tokens": n,
        "norms": layers * n,
        "word_scales": np.full_like(n, layers),
        "words": layers * (n * (n - 1) // 2),
        "layer_scales": n,
        "layers": n * (layers * (layers - 1) // 2),
    }
    return {name: np.concatenate([[0], np.cumsum(size)]) for name, size in sizes.items()}


def target_bytes(tokens: Tokens, layers: int, classes: int, kind: Kind) -> int:
    """Returns the size of the targets of a split.

    Args:
        tokens: The split.
        layers: The teacher's, with the embeddings.
        classes: Width of the logits.
        kind: The task's.
    """
    starts = example_starts(tokens.lengths, layers)
    relations = sum(dtype.itemsize * int(starts[name][-1]) for name, dtype in TYPES.items())
    return relations + 4 * logit_rows(tokens, kind) * classes


def logit_rows(tokens: Tokens, kind: Kind) -> int:
    """Returns the number of rows of logits: one per example, or one per token."""
    return int(tokens.starts[-1]) if kind.per_token else len(tokens)


def new_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap:
    """Returns the array of a new file, whose disk space is allocated at once.

    A sparse file can be created on a full disk too; writing to its map would kill the process.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def pack(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest distance of each row, and the row as 16-bit shares of it."""
    scale = distances.max(-1, initial=0.0)
    shares = distances / np.where(scale > 0, scale, 1.0)[:, None]
    # A distance that is not finite makes the scale not finite, so the loss shows it.
    levels = np.nan_to_num(np.round(shares * LEVELS))
    return scale.astype(np.float32), levels.astype(np.uint16)


def unpack(levels: np.ndarray, scale: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns squared distances, shape (rows, m, m).

    Args:
        levels: Upper triangles, shape (rows, m (m − 1) / 2).
        scale: The largest distance of each row, shape (rows,).
        index: The position of each element in a triangle, -1 for a zero, shape (m, m).
    """
    zero = np.zeros((len(levels), 1), levels.dtype)
    distances = np.concatenate([levels, zero], axis=1)[:, index].astype(np.float32)
    distances *= (scale / LEVELS)[:, None, None]
    return np.square(distances, out=distances)


@lru_cache(maxsize=1024)
def triangle_index(size: int) -> np.ndarray:
    """Returns the position of each element of a symmetric matrix in its upper triangle, or -1."""
    index = np.full((size, size), -1)
    upper = np.triu_indices(size, 1)
    index[upper] = np.arange(len(upper[0]))
    return np.maximum(index, index.T)


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Writes what `read_info` returns: `info`, and the size of the files, all and each."""
    files = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    text = json.dumps({**info, "bytes": sum(files.values()), "files": files}, indent=2)
    (folder / INFO_FILE).write_text(text, "utf-8")


def read_store_info(folder: Path) -> dict[str, Any]:
    """Returns a complete store's `examples`, `teacher_examples`, `bytes` and `build_s`.

    Raises:
        ValueError: If there is no complete store.
    """
    info = read_info(folder)
    return {name: info[name] for name in ("examples", "teacher_examples", "bytes", "build_s")}


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a complete store."""
    try:
        read_info(folder)
    except ValueError:
        return False
    return True


def read_info(folder: Path) -> dict[str, Any]:
    """Returns what the builder of a store wrote about it, after checking the sizes of its files.

    Raises:
        ValueError: If the store is missing or incomplete.
    """
    try:
        info = json.loads((folder / INFO_FILE).read_text("utf-8"))
        found = {name: (folder / name).stat().st_size for name in info["files"]}
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{folder} does not hold complete targets: {error}") from None
    if found != info["files"]:
        raise ValueError(f"the files in {folder} do not have the sizes that were written")
    return info
