"""Trimmed vocabularies: same tokens and same outputs where all tokens are kept."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    pipeline,
)

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.vocabulary import trim_vocabulary
from tests.support.tokenizers_of import KINDS

torch.set_num_threads(1)
CPU = torch.device("cpu")
SYLLABLES = [chr(0xAC00 + 28 * i) for i in range(0, 60, 3)] + ["é", "Zo", "the", "ing", "est"]


def _lines(number: int, seed: int) -> list[str]:
    """Returns lines of words of a few syllables, Korean ones and Latin ones with accents."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(SYLLABLES, rng.integers(1, 5))) for _ in range(300)]
    return [" ".join(rng.choice(words, rng.integers(2, 12))) for _ in range(number)]


LINES = _lines(400, 0)
TOKENIZERS = {kind: make(LINES, 600) for kind, make in KINDS.items()}


def _tokens(tokenizer: Any, lines: list[str]) -> Tokens:
    ids = tokenizer(lines)["input_ids"]
    starts = np.concatenate([[0], np.cumsum([len(line) for line in ids])])
    flat = np.array([token for line in ids for token in line], np.int32)
    labels = np.zeros(len(lines), np.int64)
    return Tokens(flat, np.zeros_like(flat), starts, labels, tokenizer.pad_token_id, "key")


TRIMMED = {
    kind: trim_vocabulary(tokenizer, _tokens(tokenizer, LINES[:40]), CPU)
    for kind, tokenizer in TOKENIZERS.items()
}


def _agree(kind: str, text: str) -> bool:
    """Returns whether all tokens of a text are kept, after checking that then nothing differs."""
    tokenizer, vocabulary = TOKENIZERS[kind], TRIMMED[kind]
    theirs = tokenizer(text)["input_ids"]
    if not set(theirs) <= set(vocabulary.kept.tolist()):
        return False
    ours = vocabulary.tokenizer(text)["input_ids"]
    assert vocabulary.kept[ours].tolist() == theirs
    names = (
        tokenizer.convert_ids_to_tokens(theirs),
        vocabulary.tokenizer.convert_ids_to_tokens(ours),
    )
    assert names[0] == names[1]
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_text_whose_tokens_are_all_kept_is_tokenized_alike(kind):
    assert len(TRIMMED[kind].kept) < 0.9 * len(TOKENIZERS[kind])
    agreed = [_agree(kind, line) for line in LINES]
    assert all(agreed[:40])
    assert 40 < sum(agreed) < len(LINES)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.lists(st.sampled_from(SYLLABLES), min_size=1, max_size=5), max_size=8))
def test_so_is_any_text_whose_tokens_are_all_kept(kind, words):
    _agree(kind, " ".join("".join(word) for word in words))


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_gets_more_unknown_tokens(kind):
    tokenizer, trimmed = TOKENIZERS[kind], TRIMMED[kind].tokenizer
    for text in [*LINES, "Zozo 가ing", "日本語 \u0001", "🙂 the"]:
        unknown = [
            each(text)["input_ids"].count(each.unk_token_id) for each in (tokenizer, trimmed)
        ]
        assert unknown[1] <= unknown[0], text


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_stay_special_and_pairs_are_joined_alike(kind):
    tokenizer, vocabulary = TOKENIZERS[kind], TRIMMED[kind]
    assert vocabulary.tokenizer.special_tokens_map == tokenizer.special_tokens_map
    assert vocabulary.tokenizer.pad_token_id == tokenizer.pad_token_id
    theirs, ours = (
        each(LINES[0], LINES[1], return_token_type_ids=True)
        for each in (tokenizer, vocabulary.tokenizer)
    )
    assert vocabulary.kept[ours["input_ids"]].tolist() == theirs["input_ids"]
    assert ours["token_type_ids"] == theirs["token_type_ids"]


def _model(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(TOKENIZERS[kind]) + 3,  # some models have rows without a token
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 80,
        "pad_token_id": TOKENIZERS[kind].pad_token_id,
    }
    if kind == "wordpiece":
        return BertForSequenceClassification(BertConfig(**sizes, **more)).eval()
    config = XLMRobertaConfig(**sizes, type_vocab_size=1, bos_token_id=0, eos_token_id=2, **more)
    return XLMRobertaForSequenceClassification(config).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_outputs_are_the_same_and_a_plain_pipeline_loads_it(tmp_path, kind):
    model, vocabulary = _model(kind), TRIMMED[kind]
    TOKENIZERS[kind].save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "whole")
    vocabulary.trim(model)
    assert model.config.vocab_size == len(vocabulary.kept)
    vocabulary.tokenizer.save_pretrained(tmp_path / "trimmed")
    model.save_pretrained(tmp_path / "trimmed")
    kept = [line for line in LINES if _agree(kind, line)]
    whole, trimmed = (
        pipeline("text-classification", str(tmp_path / name), top_k=None)(kept, batch_size=8)
        for name in ("whole", "trimmed")
    )
    assert whole == trimmed
    again = AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    assert again.backend_tokenizer.to_str() == vocabulary.tokenizer.backend_tokenizer.to_str()


def test_a_model_that_predicts_tokens_is_refused():
    model = BertForMaskedLM(_model("wordpiece").config)
    with pytest.raises(SpecError, match="does not work with a model that predicts tokens"):
        TRIMMED["wordpiece"].trim(model)


def test_a_model_with_another_vocabulary_is_refused():
    model = _model("wordpiece")
    model.resize_token_embeddings(50)
    with pytest.raises(SpecError, match="the model has 50 tokens"):
        TRIMMED["wordpiece"].trim(model)


def test_a_whole_word_tokenizer_keeps_the_words_that_occur():
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "aa": 2, "bb": 3}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    vocabulary = trim_vocabulary(fast, _tokens(fast, ["bb bb"]), CPU)
    assert vocabulary.kept.tolist() == [0, 1, 3]
    assert vocabulary.tokenizer("bb aa")["input_ids"][:2] == [2, 1]


def _write(path: Path, lines: list[str]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows((line, i % 2) for i, line in enumerate(lines))
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trimmed_student_is_trained_beside_its_whole_teacher(tmp_path, kind):
    _model(kind).save_pretrained(tmp_path / "teacher")
    TOKENIZERS[kind].save_pretrained(tmp_path / "teacher")
    task = {
        "name": "own",
        "train": _write(tmp_path / "train.csv", LINES[:40]),
        "dev": _write(tmp_path / "dev.csv", LINES[40:80]),
    }
    spec = {
        "task": task,
        "teacher": str(tmp_path / "teacher"),
        "layer_map": {"word": (0, 2), "layer": (0, 2)},
        "train": {"steps": 4, "batch_size": 8, "lr": 1e-3, "evaluations": 1},
    }
    losses = {}
    for vocab in ("teacher", "trim"):
        student = {"depth": 1, "vocab": vocab}
        with Distillation(TrialSpec.model_validate(spec | {"student": student})) as distillation:
            measurement = next(distillation)
            distillation.save_student(tmp_path / f"by-{vocab}")
        losses[vocab] = measurement
    # The same words, the same start, the same dropout: training does not tell the two apart.
    for name, loss in losses["teacher"].losses.items():
        assert losses["trim"].losses[name] == pytest.approx(loss, rel=1e-4, abs=1e-7), name
    assert losses["trim"].parameters < losses["teacher"].parameters
    found = evaluate_model(str(tmp_path / "by-trim"), TaskSettings(**task))["dev"]
    assert found == losses["trim"].metrics
    student = load_model(str(tmp_path / "by-trim"))
    assert student.config.vocab_size == len(load_tokenizer(str(tmp_path / "by-trim")))
