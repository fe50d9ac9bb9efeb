"""A BERT with random weights and a tokenizer of the task's text, to train a teacher from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lkd_tune.config.settings.known_tasks import GENERATED
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import Architecture
from lkd_tune.data.loading import count_labels, load_split
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenizer_training import (
    SPECIAL,
    as_bert_tokenizer,
    train_subword_tokenizer,
)
from lkd_tune.models.loading import auto_model, save_model


def build_from_scratch(architecture: Architecture, task: TaskSettings, folder: Path) -> None:
    """Writes a BERT with random weights and a tokenizer of the task's text to a folder."""
    from transformers import BertConfig

    tokenizer = _build_tokenizer(architecture, task)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        intermediate_size=architecture.intermediate_size or 4 * architecture.hidden_size,
        hidden_dropout_prob=architecture.dropout,
        attention_probs_dropout_prob=architecture.dropout,
        initializer_range=architecture.init_std,
        max_position_embeddings=task.max_length,
        num_labels=count_labels(task) or 2,  # a head over the vocabulary ignores it
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(auto_model(kind_of(task).head).from_config(config), tokenizer, folder)


def _build_tokenizer(architecture: Architecture, task: TaskSettings) -> Any:
    if architecture.vocabulary == "words":
        return build_word_tokenizer(_words(task), task.max_length)
    train = load_split(task, "train")
    return train_subword_tokenizer(
        architecture.vocabulary,
        train.strings(),
        architecture.vocabulary_size,
        task.max_length,
    )


def build_word_tokenizer(words: list[str], max_length: int) -> Any:
    """Returns a BERT tokenizer whose vocabulary is whole words; others become [UNK]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return as_bert_tokenizer(backend, max_length)


def _words(task: TaskSettings) -> list[str]:
    """Returns the words of the training text, sorted."""
    if task.data == GENERATED:
        from lkd_tune.data.acceptability.task import VOCABULARY

        return sorted(VOCABULARY)
    from tokenizers import normalizers, pre_tokenizers

    normalize, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    train = load_split(task, "train")
    words: set[str] = set()
    for text in train.strings():
        words.update(word for word, _ in split.pre_tokenize_str(normalize.normalize_str(text)))
    return sorted(words)
