"""Tokenised splits: made once, memory-mapped by every trial on a node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.batches import padded_width
from lkd_tune.data.loading import label_names, load_split, source_fingerprint
from lkd_tune.data.tasks.base import IGNORED
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.files.cache import cache_dir, get_or_build
from lkd_tune.files.digest import digest


@dataclass(frozen=True)
class Tokens:
    """A tokenised split, unpadded: example e is [starts[e]:starts[e + 1]] of the flat arrays.

    In question answering an example is a window; a question may have several.

    Attributes:
        ids: Token ids, int32, shape (all tokens,).
        types: Token type ids, int8, same shape.
        starts: int64, shape (examples + 1,).
        labels: One entry for an example, shape (examples, …), or for a token, shape (all tokens,).
        pad_id: The id that fills a batch up.
        key: Names what the tokens were made from; equal keys, equal tokens.
        token_labels: Whether labels are of tokens.
        folder: Where what scoring needs beyond these lies; None if that is nothing.
    """

    ids: np.ndarray
    types: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    pad_id: int
    key: str
    token_labels: bool = False
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def extra(self, name: str) -> np.ndarray:
        """Returns one of the further arrays that the task's kind keeps."""
        assert self.folder is not None
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def references(self) -> Any:
        """Returns what scoring compares with beyond the labels."""
        assert self.folder is not None
        return json.loads((self.folder / "references.json").read_text("utf-8"))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
        return np.diff(self.starts)

    def batch(self, examples: np.ndarray, device: torch.device) -> Batch:
        """Returns examples padded to the longest, rounded up to a multiple of 8."""
        lengths = self.lengths[examples]
        width = padded_width(lengths)
        ids = np.full((len(examples), width), self.pad_id, dtype=np.int64)
        types = np.zeros((len(examples), width), dtype=np.int64)
        labels = np.full((len(examples), width), IGNORED, dtype=np.int64)
        for row, example in enumerate(examples):
            start, end = self.starts[example], self.starts[example + 1]
            ids[row, : end - start] = self.ids[start:end]
            types[row, : end - start] = self.types[start:end]
            if self.token_labels:
                labels[row, : end - start] = self.labels[start:end]
        if not self.token_labels:
            labels = np.ascontiguousarray(self.labels[examples])
        mask = np.arange(width)[None, :] < lengths[:, None]
        batch = Batch(
            ids=torch.from_numpy(ids),
            types=torch.from_numpy(types),
            mask=torch.from_numpy(mask),
            labels=torch.from_numpy(labels),
            examples=examples,
        )
        return batch.to(device)


@dataclass(frozen=True)
class Batch:
    """Padded examples and which they are: ids, types and mask (B, N), labels (B, …) or (B, N)."""

    ids: torch.Tensor
    types: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    examples: np.ndarray

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on a device; the host does not wait for it."""
        ids, types, mask, labels = (
            to_device_async(tensor, device)
            for tensor in (self.ids, self.types, self.mask, self.labels)
        )
        return Batch(ids, types, mask, labels, self.examples)


def to_device_async(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Returns a tensor on a device, on its way there from pinned memory if that is a GPU."""
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def load_tokens(
    task: TaskSettings, split: str, tokenizer: Any, *, cache: Path | None = None
) -> Tokens:
    """Returns a split as tokens; tokenised by the first process that asks, read by all others.

    Raises:
        SpecError: If the data can't be had or lack what the task needs.
    """
    base = cache or cache_dir()
    key = digest(
        "tokens-3",
        source_fingerprint(task, split),
        # The names of the classes may come from here.
        source_fingerprint(task, "train") if task.labels is None else None,
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
    # Small and read at random: in memory. The flat arrays stay on disk, shared between processes.
    arrays["starts"], arrays["labels"] = np.array(arrays["starts"]), np.array(arrays["labels"])
    return Tokens(
        pad_id=tokenizer.pad_token_id or 0,
        key=key,
        token_labels=kind_of(task).token_labels,
        folder=folder,
        **arrays,
    )


def _tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """Returns what a tokenizer does to text; not how it cut or padded the last one."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: part for name, part in state.items() if name not in ("truncation", "padding")}


def _write_tokens(
    task: TaskSettings, split: str, tokenizer: Any, folder: Path, cache: Path
) -> None:
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
