"""Tokenised splits: made once, memory-mapped by all trials on a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import label_names, load_split, source_fingerprint
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.training_text import load_training_text, training_fingerprint
from lkd_tune.data.types import Tokens
from lkd_tune.files.cache import cache_dir, get_or_build
from lkd_tune.files.digest import digest

TRAINING = "training"
"""In place of a split: the training split, and after it the task's unlabelled text."""


def load_tokens(
    task: TaskSettings, split: str, tokenizer: Any, *, cache: Path | None = None
) -> Tokens:
    """Returns a split as tokens; the first process tokenises it, all others read the cache.

    Args:
        task: The task.
        split: 'train', 'dev' or 'test'; or `TRAINING`, if the task has unlabelled text.
        tokenizer: The tokenizer.
        cache: Folder for tokens. Default: the user's cache.

    Raises:
        SpecError: If the data can't be loaded, or lack what the task needs.
    """
    base = cache or cache_dir()
    key = digest(
        "tokens-3",
        training_fingerprint(task) if split == TRAINING else source_fingerprint(task, split),
        # The names of the classes may come from another split.
        source_fingerprint(task, task.named_in) if task.labels is None else None,
        _tokenizer_state(tokenizer),
        sorted(tokenizer.special_tokens_map.items()),
        task.max_length,
    )
    folder = base / "tokens" / key
    get_or_build(
        folder, lambda draft: _write_tokens(task, split, tokenizer, draft, base), "the tokens"
    )
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in ("ids", "types", "starts", "labels")
    }
    # These are small and read at random, so they are in memory. The flat arrays are memory-mapped,
    # shared between processes.
    arrays["starts"], arrays["labels"] = np.array(arrays["starts"]), np.array(arrays["labels"])
    return Tokens(
        pad_id=tokenizer.pad_token_id or 0,
        key=key,
        token_labels=kind_of(task).token_labels,
        folder=folder,
        **arrays,
    )


def _tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """Returns a tokenizer's settings without those of the last call, truncation and padding."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: part for name, part in state.items() if name not in ("truncation", "padding")}


def _write_tokens(
    task: TaskSettings, split: str, tokenizer: Any, folder: Path, cache: Path
) -> None:
    if split == TRAINING:
        text = load_training_text(task, cache=cache).split
    else:
        text = load_split(task, split, cache=cache)
    encoded = kind_of(task).encode(task, text, tokenizer, label_names(task, cache=cache))
    lengths = [len(ids) for ids in encoded.ids]
    arrays: dict[str, np.ndarray] = {
        "ids": np.fromiter((t for ids in encoded.ids for t in ids), np.int32),
        "types": np.fromiter((t for types in encoded.types for t in types), np.int8),
        "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "labels": encoded.labels,
        **encoded.extras,
    }
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    if encoded.references is not None:
        references = json.dumps(encoded.references, ensure_ascii=False)
        (folder / "references.json").write_text(references, "utf-8")
