"""Tokenizers as the hub has them, trained on some lines of text: one of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import DebertaV2Tokenizer, PreTrainedTokenizerFast

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


def llama3(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of Llama 3: byte-level, whole words before merges, no padding token."""
    backend = _byte_level(lines, size, _WORDS)
    tree = json.loads(backend.to_str())
    tree["model"]["ignore_merges"] = True
    backend = Tokenizer.from_str(json.dumps(tree))
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    backend.add_special_tokens([begin, end, "<|reserved|>"])
    template = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin}:1 $B:1",
        special_tokens=[(begin, backend.token_to_id(begin))],
    )
    backend.post_processor = processors.Sequence([processors.ByteLevel(), template])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=begin, eos_token=end)


def qwen(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of Qwen: byte-level, nothing around a text, and a padding token."""
    backend = _byte_level(lines, size, _WORDS)
    backend.normalizer = normalizers.NFC()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )


def modernbert(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of ModernBERT: byte-level, with added tokens for runs of spaces."""
    backend = _byte_level(lines, size)
    backend.normalizer = normalizers.NFC()
    backend.add_tokens(["  ", "    "])
    backend.add_special_tokens([*BERT[:-1], AddedToken("[MASK]", lstrip=True)])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return _fast(backend, *BERT)


def gemma(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of Gemma and Llama 2: sentencepiece's BPE, bytes for other characters."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size + 256, special_tokens=[*special, *every_byte], show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    tree = json.loads(backend.to_str())
    tree["added_tokens"] = tree["added_tokens"][: len(special)]  # bytes are no text of their own
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree)),
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
    )


def deberta(lines: list[str], size: int = 2000) -> Any:
    """Returns one as of DeBERTa-v3: Unigram, with a mask token after the vocabulary."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    backend = Tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=special, unk_token="[UNK]", show_progress=False
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.train_from_iterator(lines, trainer)
    scores = [tuple(entry) for entry in json.loads(backend.to_str())["model"]["vocab"]]
    return DebertaV2Tokenizer(vocab=scores, unk_id=3)


# The words of GPT-4, Llama 3 and Qwen, in short.
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"


def _byte_level(lines: list[str], size: int, words: str | None = None) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if words is not None:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(words), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(lines, trainer)
    backend.decoder = decoders.ByteLevel()
    return backend


KINDS: dict[str, Callable[..., Any]] = {
    "wordpiece": wordpiece,
    "byte_bpe": byte_bpe,
    "unigram": unigram,
}
FAMILIES: dict[str, Callable[..., Any]] = {
    "bert": wordpiece,
    "roberta": byte_bpe,
    "xlm-roberta": unigram,
    "modernbert": modernbert,
    "llama": llama3,
    "qwen3": qwen,
    "gemma3_text": gemma,
    "deberta-v2": deberta,
}
"""A tokenizer by the family of a model that has it."""


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
