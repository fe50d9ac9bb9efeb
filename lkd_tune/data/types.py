"""The data structures that all modules of `data` share: a split as text, as tokens, as batches.

B examples in a batch, N tokens of its longest example, padding included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.data.batches import padded_width

IGNORED = -100
"""The label of a token that no loss compares, as in PyTorch's cross-entropy."""
UNLABELLED = -101
"""The label of an example or a word that only the teacher's answer tells of. Of numbers it is NaN.
"""


def is_labelled(labels: torch.Tensor) -> torch.Tensor:
    """Returns True where a row has a label, shape (R,), of labels of shape (R,) or (R, …)."""
    known = ~labels.isnan() if labels.is_floating_point() else labels != UNLABELLED
    return known.flatten(1).all(1) if known.ndim > 1 else known


@dataclass(frozen=True)
class Split:
    """Text and labels of one split, in the order of the source.

    Attributes:
        text: First sentences; lists of words in tagging, of sentences in extractive_summary;
            questions.
        pair: Second sentences or contexts, or None.
        label: The labels as the kind of task reads them: class ids, numbers, lists of class ids,
            answers, summaries. None for a row without one.
    """

    text: list[Any]
    pair: list[str] | None
    label: list[Any]

    def strings(self) -> list[str]:
        """Returns all text of the split, for a vocabulary."""
        return [*self._first(), *(self.pair or [])]

    def rows(self) -> list[str]:
        """Returns the text of each row, a pair's second text after its first."""
        first = self._first()
        if self.pair is None:
            return first
        return [f"{one}\n{two}" for one, two in zip(first, self.pair, strict=True)]

    def _first(self) -> list[str]:
        return [text if isinstance(text, str) else " ".join(text) for text in self.text]


@dataclass(frozen=True)
class Encoded:
    """A split as token ids, unpadded, before it is written to the cache.

    Attributes:
        ids: Token ids of each example.
        types: Token type ids of each example.
        labels: One entry per example, or per token if the kind has `token_labels`.
        extras: Further arrays that scoring needs, by name.
        references: What scoring needs beyond arrays and labels, JSON-serialisable.
    """

    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]]
    labels: np.ndarray
    extras: dict[str, np.ndarray]
    references: Any = None


@dataclass(frozen=True)
class Tokens:
    """A tokenised split, unpadded: example e is [starts[e]:starts[e + 1]] of the flat arrays.

    In question answering an example is a window; a question may have several.

    Attributes:
        ids: Token ids, int32, shape (all tokens,).
        types: Token type ids, int8, same shape.
        starts: int64, shape (examples + 1,).
        labels: One entry per example, shape (examples, …), or per token, shape (all tokens,).
        pad_id: The token id that pads a batch.
        key: Identifies what the tokens were made from; equal keys mean equal tokens.
        token_labels: Whether the labels are per token.
        folder: The cache folder with `extra` arrays and `references`; None if there are none.
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
        """Returns one of the arrays in `Encoded.extras`, memory-mapped."""
        assert self.folder is not None
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def references(self) -> Any:
        """Returns `Encoded.references`, read from the cache folder at each call."""
        assert self.folder is not None
        return json.loads((self.folder / "references.json").read_text("utf-8"))

    @cached_property
    def labelled(self) -> np.ndarray:
        """Whether each example has a label, shape (examples,)."""
        known = is_labelled(torch.from_numpy(self.labels)).numpy()
        return np.logical_and.reduceat(known, self.starts[:-1]) if self.token_labels else known

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each example."""
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
    """Padded examples.

    Attributes:
        ids: Token ids, (B, N), int64.
        types: Token type ids, (B, N), int64.
        mask: True where a token is real, (B, N).
        labels: (B, …), or (B, N) if they are per token, `IGNORED` in the padding.
        examples: Indices of the examples in the split, (B,), on the host.
    """

    ids: torch.Tensor
    types: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    examples: np.ndarray

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on a device; the host does not wait for the copy."""
        ids, types, mask, labels = (
            to_device_async(tensor, device)
            for tensor in (self.ids, self.types, self.mask, self.labels)
        )
        return Batch(ids, types, mask, labels, self.examples)


def to_device_async(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Returns a tensor on a device; the host does not wait for a copy to a GPU."""
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
