"""Augmented training text: copies of each example with some words replaced by likely others.

As in TinyBERT (Jiao et al., arXiv:1909.10351, "Data Augmentation"), each word of a copy is replaced
with a fixed probability by one of the K most likely words in its place. If the settings name a
masked language model, it predicts these words. Otherwise they are the nearest words in the
teacher's embeddings, as a fine-tuned classifier has no head that predicts words. TinyBERT takes the
nearest words in GloVe where it has no prediction.

Only words of one token are replaced, by words of one token. So an example keeps its length, label,
special tokens and token types, and teacher and student see the same tokens. TinyBERT replaces
longer words too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import Augmentation, TaskSettings
from lkd_tune.data.tokenize import TRAINING, load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.files.cache import cache_dir, get_or_build
from lkd_tune.files.digest import digest
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import has_vocabulary_of, load_masked_lm, load_model, model_digest

_BATCH_EXAMPLES = 64

# Returns the K most likely words for each position of the flat ids, shape (positions, K).
Predict = Callable[[np.ndarray], np.ndarray]


def load_training_tokens(
    task: TaskSettings,
    teacher: str | None,
    tokenizer: Any,
    on: torch.device,
    *,
    cache: Path | None = None,
) -> Tokens:
    """Returns the training split and, if there is a teacher, unlabelled text and augmented copies.

    Unlabelled text follows the split, and copies follow both. The first process that calls this
    creates them.

    Args:
        task: The task.
        teacher: Folder or hub id. None, as for the training of a teacher: the split alone.
        tokenizer: The teacher's.
        on: Where the words are predicted.
        cache: Folder for tokens. Default: the user's cache.

    Raises:
        SpecError: If the data or the model can't be loaded or do not fit.
    """
    alone = task.unlabelled is None or teacher is None
    tokens = load_tokens(task, "train" if alone else TRAINING, tokenizer, cache=cache)
    if task.augment is None or teacher is None:
        return tokens
    settings = task.augment
    predictor = settings.model or teacher
    key = digest("augmented-1", tokens.key, settings.model_dump(), model_digest(predictor))
    path = (cache or cache_dir()) / "tokens" / f"{key}.npy"

    def build(draft: Path) -> None:
        predict = _predictor(settings, teacher, tokenizer, tokens, on)
        np.save(draft, augmented_ids(tokens, settings, tokenizer, predict))

    get_or_build(path, build, "the augmented tokens")
    parts = settings.copies + 1
    lengths = np.tile(tokens.lengths, parts)
    return replace(
        tokens,
        ids=np.load(path, mmap_mode="r"),
        types=np.tile(tokens.types, parts),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        labels=np.concatenate([tokens.labels] * parts),
        key=key,
    )


def augmented_ids(
    tokens: Tokens, settings: Augmentation, tokenizer: Any, predict: Predict
) -> np.ndarray:
    """Returns the ids of a split followed by those of its copies, flat, int32."""
    words, begins = _words(tokenizer)
    ids = np.asarray(tokens.ids)
    follows = np.append(begins[ids[1:]], True)
    follows[tokens.starts[1:] - 1] = True
    replaceable = words[ids] & begins[ids] & follows
    rng = np.random.default_rng(settings.seed)
    chosen = rng.random((settings.copies, len(ids))) < settings.probability
    chosen &= replaceable
    positions = np.flatnonzero(chosen.any(0))
    copies = np.tile(ids, (settings.copies, 1))
    if len(positions):
        likely = predict(positions)
        picks = rng.integers(0, likely.shape[1], (settings.copies, len(positions)))
        drawn = likely[np.arange(len(positions)), picks]
        copies[:, positions] = np.where(chosen[:, positions], drawn, copies[:, positions])
    return np.concatenate([ids, copies.reshape(-1)]).astype(np.int32)


def _words(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether each token may be a whole word, and whether a word ends before it."""
    kind = type(tokenizer.backend_tokenizer.model).__name__
    texts = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = np.zeros(len(texts), dtype=bool)
    special[tokenizer.all_special_ids] = True
    if kind in ("WordPiece", "WordLevel"):
        starts = np.array([not text.startswith("##") for text in texts])
        bare = texts
    else:  # byte-level BPE and sentencepiece mark the space before a word
        starts = np.array([text[:1] in ("Ġ", "▁") for text in texts])
        bare = [tokenizer.backend_tokenizer.decode([i]).strip() for i in range(len(texts))]
    letters = np.array([text.isalpha() for text in bare])
    return starts & letters & ~special, starts | special


def _predictor(
    settings: Augmentation, teacher: str, tokenizer: Any, tokens: Tokens, on: torch.device
) -> Predict:
    words, _ = _words(tokenizer)
    number = min(settings.candidates, int(words.sum()) - 1)
    if number < 1:
        message = "the teacher's tokenizer has no tokens that are whole words; leave augment out"
        raise SpecError(Problem("", "task.augment", message))
    if settings.model is None:
        # Only the embeddings are used.
        embeddings = load_model(teacher, new_head=True).get_input_embeddings().weight.detach()
        return lambda positions: _nearest(embeddings, tokens.ids[positions], words, number)
    check_predictor(settings.model, teacher)
    model = load_masked_lm(settings.model).to(on)
    return lambda positions: _likeliest(
        model, tokenizer.mask_token_id, tokens, positions, words, number, on
    )


def check_predictor(model: str, teacher: str) -> None:
    """Checks that the model which predicts likely words has the teacher's vocabulary.

    Raises:
        SpecError: If it does not exist, or has another one.
    """
    key = "task.augment.model"
    if not has_vocabulary_of(model, teacher, key):
        message = (
            f"{model} has another vocabulary than the teacher {teacher}; use a model that has the "
            "teacher's tokenizer"
        )
        raise SpecError(Problem("", key, message))


def _nearest(
    embeddings: torch.Tensor, ids: np.ndarray, words: np.ndarray, number: int
) -> np.ndarray:
    """Returns the words whose embeddings have the largest cosines with those of the given words."""
    candidates = np.flatnonzero(words)
    unit = torch.nn.functional.normalize(embeddings[torch.from_numpy(candidates)])
    unique, inverse = np.unique(ids, return_inverse=True)
    where = np.searchsorted(candidates, unique)
    rows = []
    for part in np.array_split(where, -(-len(where) // 1024)):
        cosine = unit[part] @ unit.T
        cosine[torch.arange(len(part)), torch.from_numpy(part)] = -torch.inf
        rows.append(cosine.topk(number).indices.numpy())
    return candidates[np.concatenate(rows)][inverse]


def _likeliest(
    model: Any,
    mask_id: int,
    tokens: Tokens,
    positions: np.ndarray,
    words: np.ndarray,
    number: int,
    on: torch.device,
) -> np.ndarray:
    """Returns the words that a masked language model predicts, one masked position at a time."""
    examples = np.searchsorted(tokens.starts, positions, side="right") - 1
    order = np.argsort(tokens.lengths[examples], kind="stable")
    likely = np.empty((len(positions), number), dtype=np.int64)
    excluded = torch.from_numpy(~words).to(on)
    for part in np.array_split(order, -(-len(order) // _BATCH_EXAMPLES)):
        batch = tokens.batch(examples[part], on)
        rows = torch.arange(len(part), device=on)
        at = torch.from_numpy(positions[part] - tokens.starts[examples[part]]).to(on)
        own = batch.ids[rows, at]
        batch.ids[rows, at] = mask_id
        with torch.no_grad():
            logits = forward(model, batch, hidden_states=False).logits[rows, at, : len(words)]
        logits = logits.masked_fill(excluded, -torch.inf)
        logits[rows, own] = -torch.inf
        likely[part] = logits.topk(number).indices.cpu().numpy()
    return likely
