"""Tokenizers trained on a task's text, for teachers that are trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Kind = Literal["wordpiece", "unigram"]


def train_subword_tokenizer(kind: Kind, lines: Iterable[str], size: int, max_length: int) -> Any:
    """Returns a subword tokenizer trained on some text; it keeps case and accents.

    Stripping accents, as BERT's uncased tokenizers do, would split Korean syllables.

    Args:
        kind: `wordpiece`, as multilingual BERT has, or `unigram` of sentencepiece, as XLM-R has;
            both with the special tokens of BERT.
        lines: The text.
        size: Largest number of tokens.
        max_length: Longest input in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    special = list(SPECIAL)
    if kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=special, show_progress=False
        )
    else:
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=special, unk_token="[UNK]", show_progress=False
        )
    backend.train_from_iterator(lines, trainer)
    return as_bert_tokenizer(backend, max_length)


def as_bert_tokenizer(backend: Any, max_length: int) -> Any:
    """Returns a tokenizer with BERT's special tokens around one or two sentences."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        # Without token types a plain pipeline could not separate the sentences of a pair.
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
