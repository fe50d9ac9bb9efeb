"""Whether a model can be the teacher of a task: its files, its tokenizer, its first answers."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import load_split, load_texts
from lkd_tune.data.tasks.base import Kind
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Batch, Tokens
from lkd_tune.models.forward import forward
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.storage.fetch import local_model
from lkd_tune.storage.weights import check_finite, has_wrapper_names

_EXAMPLES_RUN = 16
_TEXTS_READ = 2000
_MOST_UNKNOWN = 0.1
# Of the largest logit. Rounding in bf16 changes it by a few percent, another token by far more.
_LARGEST_CHANGE = 0.2
_HOST = torch.device("cpu")


def check_teacher(model: str, task: TaskSettings, *, cache: Path | None = None) -> list[str]:
    """Returns warnings about a teacher, after loading it and running it on the first rows of dev.

    Args:
        model: Folder or hub id of a model that was fine-tuned on the task.
        task: The task.
        cache: Folder for tokenized data. Default: the user's cache.

    Raises:
        SpecError: If the weights can't be read, are not all there, or are not finite; if the
            tokenizer has no words or others than the model; or if the answers are not finite or
            change with padding.
    """
    loaded = _load(model, task)
    tokenizer, kind = load_tokenizer(model), kind_of(task)
    tokens = load_tokens(task, "dev", tokenizer, cache=cache)
    _check_tokens(model, loaded, tokens)
    _check_answers(model, loaded, kind, tokens)
    _check_padding(model, loaded, kind, tokens)
    return _what_to_know(model, tokenizer, task, cache)


def check_start(model: str, task: TaskSettings, *, cache: Path | None = None) -> list[str]:
    """Returns warnings about the model that a teacher is fine-tuned from, after loading it.

    Args:
        model: Folder or hub id of a pre-trained model, with or without a head.
        task: The task.
        cache: Folder for downloaded data. Default: the user's cache.

    Raises:
        SpecError: If the encoder's weights can't be read, are not all there, or are not finite; if
            the tokenizer has no words or others than the encoder; or if padding changes answers.
    """
    loaded, tokenizer = _load(model, task, new_head=True), load_tokenizer(model)
    tokens = load_tokens(task, "dev", tokenizer, cache=cache)
    _check_tokens(model, loaded, tokens)
    _check_padding(model, loaded, kind_of(task), tokens)
    return _what_to_know(model, tokenizer, task, cache)


def score_of_constant(task: TaskSettings, model: str, *, cache: Path | None = None) -> float:
    """Returns the metric on dev of a model that always gives the same, best possible answer.

    Args:
        task: The task.
        model: Folder or hub id of the teacher, for its tokenizer.
        cache: Folder for tokenized data. Default: the user's cache.
    """
    kind = kind_of(task)
    tokens = load_tokens(task, "dev", load_tokenizer(model), cache=cache)
    outputs = kind.constant_outputs(tokens)
    return 0.0 if outputs is None else kind.score(outputs, tokens)[task.metric]


def _what_to_know(model: str, tokenizer: Any, task: TaskSettings, cache: Path | None) -> list[str]:
    """Returns what a user should know of a model and its tokenizer."""
    notes = _warn_of_names(model)
    if tokenizer.pad_token == tokenizer.eos_token:
        end = tokenizer.eos_token
        notes.append(f"{model} has no padding token, so texts are padded with {end}, its last one")
    return notes + _warn_of_unknown_tokens(model, tokenizer, task, cache=cache)


def _warn_of_unknown_tokens(
    model: str, tokenizer: Any, task: TaskSettings, *, cache: Path | None = None
) -> list[str]:
    """Returns a warning if a tokenizer does not know much of the training text.

    Args:
        model: The tokenizer's model, for the message.
        tokenizer: The tokenizer.
        task: The task.
        cache: Folder for downloaded data. Default: the user's cache.
    """
    if tokenizer.unk_token_id is None:
        return []
    if task.train is not None:
        texts = load_split(task, "train", cache=cache).strings()[:_TEXTS_READ]
    else:
        texts = load_texts(task.of_unlabelled(), "train", cache=cache).strings()[:_TEXTS_READ]
    encoded = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=512)
    ids = np.fromiter(chain.from_iterable(encoded["input_ids"]), np.int64)
    share = float((ids == tokenizer.unk_token_id).mean()) if len(ids) else 0.0
    if share <= _MOST_UNKNOWN:
        return []
    return [
        f"warning: {share:.0%} of the training text's tokens are unknown to the tokenizer of "
        f"{model} ({tokenizer.unk_token}); use a model of the text's language and script"
    ]


def _check_answers(model: str, loaded: Any, kind: Kind, tokens: Tokens) -> None:
    examples = np.arange(min(len(tokens), _EXAMPLES_RUN))
    batch = kind.prepare_batch(tokens.batch(examples, _HOST), tokens, seed=0, step=0)
    with torch.inference_mode():
        answers = kind.logits(forward(loaded, batch, hidden_states=False))
    if not bool(torch.isfinite(answers).all()):
        message = (
            f"{model} answers the first rows of dev with NaN or infinite numbers, though its "
            "weights are finite; use an earlier checkpoint"
        )
        raise SpecError(Problem("", "teacher", message))


def _check_tokens(model: str, loaded: Any, tokens: Tokens) -> None:
    last, rows = max(int(tokens.ids.max()), tokens.pad_id), loaded.get_input_embeddings()
    if last >= rows.num_embeddings:
        message = (
            f"{model} has embeddings of {rows.num_embeddings} tokens, its tokenizer uses token "
            f"{last}; use the tokenizer that the model was trained with"
        )
        raise SpecError(Problem("", "teacher", message))


def _check_padding(model: str, loaded: Any, kind: Kind, tokens: Tokens) -> None:
    """Checks that a text has the same answer with padding after it as without.

    A decoder reads its class at the last token that is not padding by its configuration.
    """
    if kind.per_token:
        return
    lengths = tokens.lengths[:_EXAMPLES_RUN]
    short, long = int(lengths.argmin()), int(lengths.argmax())
    padded = tokens.batch(np.array([short, long]), _HOST)
    size = int(lengths[short])
    alone = Batch(
        ids=padded.ids[:1, :size],
        types=padded.types[:1, :size],
        mask=padded.mask[:1, :size],
        labels=padded.labels[:1],
        examples=padded.examples[:1],
    )
    with torch.inference_mode():
        ours, theirs = (
            kind.logits(forward(loaded, batch, hidden_states=False))[0].float()
            for batch in (padded, alone)
        )
    if (ours - theirs).abs().max() > _LARGEST_CHANGE * theirs.abs().max().clamp(min=1e-6):
        message = (
            f"padding after a text changes the answers of {model}: its tokenizer pads with token "
            f"{tokens.pad_id}, its config.json has pad_token_id {loaded.config.pad_token_id}; set "
            f"that to {tokens.pad_id}"
        )
        raise SpecError(Problem("", "teacher", message))


def _warn_of_names(model: str) -> list[str]:
    if not has_wrapper_names(Path(local_model(model))):
        return []
    return [
        f"the weights of {model} are named as torch.compile or DDP names them; the prefixes are "
        "left out"
    ]


def _load(model: str, task: TaskSettings, *, new_head: bool = False) -> Any:
    """Returns a model whose weights are all there and finite; its problems are the teacher's."""
    try:
        # As in the files: weights then take no memory until they are read.
        loaded = load_model(model, kind_of(task).head, new_head=new_head, dtype="auto")
        check_finite(model, loaded)
        if loaded.dtype == torch.float16:
            loaded.float()  # CPUs are slow in fp16, and some layers have no such code
    except SpecError as error:
        problems = (Problem("", "teacher", problem.message) for problem in error.problems)
        raise SpecError(problems) from None
    return loaded
