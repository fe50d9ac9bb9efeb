"""Running the teacher once over the training split, and storing its targets for all trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from lkd_tune.config.settings.teacher import PLAIN, Inference
from lkd_tune.data.batches import batches_of_tokens
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.targets.base import LiveTeacher, Maps
from lkd_tune.distillation.targets.store_format import (
    FORMAT,
    TYPES,
    example_starts,
    is_complete,
    logit_rows,
    new_array,
    pack,
    target_bytes,
    write_info,
)
from lkd_tune.distillation.targets.vectors import (
    VECTOR_PARTS,
    VectorPart,
    VectorWriter,
    vector_folder,
)
from lkd_tune.files.cache import get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.files.disk import IN_CACHE, disk_space_for
from lkd_tune.losses.inputs import Targets
from lkd_tune.models.comparable import check_attention
from lkd_tune.models.families import width_of
from lkd_tune.models.loading import load_for_inference, model_digest

# Tokens of a batch, padding included, that the teacher runs on at a time.
_BATCH_TOKENS = 4096
_RELATIONS = "relations"


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
    vectors: Collection[VectorPart] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Returns the folder of a complete store of relations, with stores of vectors beside it.

    What does not exist is built, in one pass of the teacher over the split. If several processes
    ask for it at the same time, one builds it and the others wait.

    Args:
        teacher: Folder or hub id.
        tokens: The training split.
        kind: The task's, which defines the logits that are stored.
        on: Where the teacher runs.
        cache: Folder for stores.
        inference: How the teacher runs.
        vectors: The parts that are stored as vectors.
        progress: Called with the number of examples done and their total.
    """
    folder = store_folder(teacher, tokens, cache, inference)
    folders = {part: vector_folder(folder, part) for part in VECTOR_PARTS if part in vectors}

    def run_teacher(drafts: Mapping[str, Path]) -> None:
        loaded = load_for_inference(teacher, kind.head, inference)
        live = LiveTeacher(loaded, kind, on, inference=inference)
        _build(drafts, loaded, live, tokens, kind, on, progress)

    _fill([(_RELATIONS, folder), *folders.items()], {}, run_teacher)
    return folder


def _fill(
    missing: Sequence[tuple[str, Path]],
    drafts: Mapping[str, Path],
    run_teacher: Callable[[Mapping[str, Path]], None],
) -> None:
    """Builds stores, all in one run of the teacher, while those before them are locked.

    Every process asks for them in the same order, so none waits for another in a circle.
    """
    if not missing:
        if drafts:
            run_teacher(drafts)
        return
    (part, folder), *others = missing
    built = False

    def build(draft: Path) -> None:
        nonlocal built
        built = True
        _fill(others, {**drafts, part: draft}, run_teacher)

    get_or_build(folder, build, "the teacher's targets", is_complete=is_complete)
    if not built:
        _fill(others, drafts, run_teacher)


def _build(
    drafts: Mapping[str, Path],
    teacher: Any,
    live: LiveTeacher,
    tokens: Tokens,
    kind: Kind,
    on: torch.device,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Runs a teacher over a split and writes stores, each part into its own folder."""
    begin = time.perf_counter()
    layers = teacher.config.num_hidden_layers + 1
    writers: list[RelationWriter | VectorWriter] = []
    for part, folder in drafts.items():
        if part == _RELATIONS:
            writers.append(RelationWriter(folder, tokens, kind, layers, teacher.config.num_labels))
            continue
        full = width_of(teacher)
        width = check_attention(teacher) if part == "attention" else full.hidden_size
        own = cast(VectorPart, part)
        writers.append(VectorWriter(folder, own, tokens, layers, width, full.heads))
    every = tuple(range(layers))
    relations = every if _RELATIONS in drafts else ()
    maps = Maps(
        word=relations,
        layer=relations,
        hidden=every if "hidden_states" in drafts else (),
        attention=every[1:] if "attention" in drafts else (),
    )
    done = 0
    for examples in batches_of_tokens(tokens.lengths, _BATCH_TOKENS):
        targets = live(tokens.batch(examples, on), maps)
        for writer in writers:
            writer.write(examples, targets)
        done += len(examples)
        if progress is not None:
            progress(done, len(tokens))
    info = {"examples": len(tokens), "teacher_examples": done}
    for writer in writers:
        writer.close({**info, "build_s": time.perf_counter() - begin})


class RelationWriter:
    """Writes a store of logits and relations while the teacher runs over a split.

    Args:
        folder: Is created.
        tokens: The split.
        kind: The task's.
        layers: The teacher's, with the embeddings.
        classes: Width of the logits.
    """

    def __init__(self, folder: Path, tokens: Tokens, kind: Kind, layers: int, classes: int):
        folder.mkdir()
        self._folder, self._tokens, self._kind, self._layers = folder, tokens, kind, layers
        self._starts = example_starts(tokens.lengths, layers)
        size = target_bytes(tokens, layers, classes, kind) / 1e9
        with disk_space_for(f"{size:.2f} GB of the teacher's targets {IN_CACHE}", folder.parent):
            self._arrays = {
                name: new_array(folder / f"{name}.npy", dtype, (int(self._starts[name][-1]),))
                for name, dtype in TYPES.items()
            }
            shape = (logit_rows(tokens, kind), classes)
            self._logits = new_array(folder / "logits.npy", np.dtype(np.float32), shape)

    def write(self, examples: np.ndarray, targets: Targets) -> None:
        """Writes the logits and relations of some examples, at all layers."""
        tokens, found = self._tokens, targets.logits.cpu().numpy()
        if self._kind.per_token:
            for row, example in enumerate(examples):
                own = slice(tokens.starts[example], tokens.starts[example + 1])
                self._logits[own] = found[row, : tokens.lengths[example]]
        else:
            self._logits[examples] = found
        word, layer = targets.word_relations, targets.layer_relations
        assert word is not None
        assert layer is not None
        norms = word.sq_norm.cpu().numpy()
        words, layers = word.sq_dist.sqrt().cpu().numpy(), layer.sq_dist.sqrt().cpu().numpy()
        for row, example in enumerate(examples):
            n = int(tokens.lengths[example])
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
                start, end = self._starts[name][example : example + 2]
                self._arrays[name][start:end] = value.reshape(-1)

    def close(self, info: dict[str, Any]) -> None:
        """Writes what `StoredTargets` reads about the store: `info` and more."""
        for array in (*self._arrays.values(), self._logits):
            array.flush()
        own = {"format": FORMAT, "layers": self._layers, "per_token": self._kind.per_token}
        write_info(self._folder, {**own, **info})
