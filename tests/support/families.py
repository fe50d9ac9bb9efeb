"""Tiny classifiers with random weights, one of each family, saved as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from lkd_tune.models.from_scratch import build_word_tokenizer

WORDS = ["the", "a", "dog", "cat", "dogs", "cats", "sees", "see", "good", "bad", "very", "not"]
_SIZES = {
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
_DISTILBERTS = {
    "vocab_size": 5 + len(WORDS),
    "dim": 32,
    "n_layers": 4,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 40,
}
_ROBERTAS = {"pad_token_id": 0, "type_vocab_size": 1}
CONFIGS = {
    "bert": lambda **o: BertConfig(**{**_SIZES, **o}),
    "roberta": lambda **o: RobertaConfig(
        **{**_SIZES, "pad_token_id": 0, "type_vocab_size": 1, **o}
    ),
    "xlm-roberta": lambda **o: XLMRobertaConfig(
        **{**_SIZES, "pad_token_id": 0, "type_vocab_size": 1, **o}
    ),
    "electra": lambda **o: ElectraConfig(**_SIZES, embedding_size=16, **o),
    "distilbert": lambda **o: DistilBertConfig(**{**_DISTILBERTS, **o}),
}

# Families that are known by their structure alone, with what sets them apart.
_GROUPED = {"num_key_value_heads": 2}
OTHERS = {
    "camembert": {},
    "mpnet": {},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
    },
    "modernbert": {"num_hidden_layers": 6},  # every third layer is global
    "eurobert": _GROUPED,
    "nomic_bert": {},
    "gte": {},
    "gpt2": {},
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "gemma2": {**_GROUPED, "head_dim": 8},
    "gemma3_text": {**_GROUPED, "head_dim": 8, "num_hidden_layers": 6},
    "mistral": _GROUPED,
    "phi3": _GROUPED,
    "olmo2": _GROUPED,
    "smollm3": _GROUPED,  # every fourth layer has no positions
    "gpt_neox": {},
    "bloom": {},
}
# Those of them whose width can't be pruned: transposed weights, queries, keys and values of a head
# side by side, norms over all heads.
_WIDE = {"gpt2", "gpt_neox", "bloom", "olmo2"}
NARROWED = [*CONFIGS, *(family for family in OTHERS if family not in _WIDE)]


def config_of(family: str, **options: Any) -> Any:
    """Returns the configuration of a tiny model of any family."""
    if family in CONFIGS:
        return CONFIGS[family](**options)
    own = {"pad_token_id": 0, "vocab_size": 32, **OTHERS.get(family, {})}
    return CONFIG_MAPPING[family](**{**_SIZES, **own, **options})


def make_classifier(folder: Path, family: str = "bert", *, labels: int = 2, **options: Any) -> str:
    """Writes a model with a tokenizer and returns its folder."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        config_of(family, num_labels=labels, **options)
    )
    model.save_pretrained(folder)
    build_word_tokenizer(WORDS, 40).save_pretrained(folder)
    return str(folder)


def make_decoder(folder: Path, *, pad: int | None) -> str:
    """Writes a GPT-2 with this padding token; the tokenizer has one if the model has any."""
    make_classifier(folder, "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "[SEP]"
    if pad is None:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    config = config_of("gpt2", pad_token_id=pad, eos_token_id=tokenizer.eos_token_id)
    config.save_pretrained(folder)
    return str(folder)


def without_dropout(family: str) -> dict[str, float]:
    """Returns the options that switch dropout off, for results that must be equal."""
    if family == "distilbert":
        return {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    return {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_csv(folder: Path, rows: int = 48, name: str = "data.csv") -> str:
    """Writes sentences of one to ten words, labelled by whether there is a cat in them."""
    lines = ["text,label"]
    for i in range(rows):
        words = [WORDS[(i * 7 + k * (i + 3)) % len(WORDS)] for k in range(1 + i % 10)]
        lines.append(f"{' '.join(words)},{int('cat' in words or 'cats' in words)}")
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)
