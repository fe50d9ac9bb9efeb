"""Tokenizers as the hub has them, trained on some lines of text: one of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of bert-base-multilingual-cased: case and accents are kept."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(
        lines, trainers.WordPieceTrainer(vocab_size=size, special_tokens=BERT, show_progress=False)
    )
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.decoder = decoders.WordPiece()
    return _fast(backend, *BERT)


def byte_bpe(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of roberta-base."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=ROBERTA,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    backend.decoder = decoders.ByteLevel()
    return _fast(backend, *_in_berts_order(ROBERTA))


def unigram(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of xlm-roberta-base: sentencepiece's Unigram."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=ROBERTA, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    backend.decoder = decoders.Metaspace()
    return _fast(backend, *_in_berts_order(ROBERTA))


KINDS: dict[str, Callable[..., Any]] = {
    "wordpiece": wordpiece,
    "byte_bpe": byte_bpe,
    "unigram": unigram,
}


def _in_berts_order(special: list[str]) -> Iterator[str]:
    begin, pad, end, unknown, mask = special
    yield from (pad, unknown, begin, end, mask)


def _fast(backend: Any, pad: str, unknown: str, begin: str, end: str, mask: str) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=64,
        pad_token=pad,
        unk_token=unknown,
        cls_token=begin,
        sep_token=end,
        mask_token=mask,
    )
