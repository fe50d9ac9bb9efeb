"""Trimmed vocabularies: same tokens and same outputs where all tokens are kept."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.self_test import check_trimming
from lkd_tune.models.vocabulary import check_tokenizer, trim_vocabulary
from tests.support.families import config_of, make_classifier
from tests.support.tokenizers_of import FAMILIES

torch.set_num_threads(1)
CPU = torch.device("cpu")
SYLLABLES = [chr(0xAC00 + 28 * i) for i in range(0, 60, 3)] + ["é", "Zo", "the", "ing", "est"]


def _lines(number: int, seed: int) -> list[str]:
    """Returns lines of words of a few syllables, Korean ones and Latin ones with accents."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(SYLLABLES, rng.integers(1, 5))) for _ in range(300)]
    return [" ".join(rng.choice(words, rng.integers(2, 12))) for _ in range(number)]


LINES = _lines(400, 0)
TOKENIZERS = {family: make(LINES, 600) for family, make in FAMILIES.items()}
for each in TOKENIZERS.values():  # as `load_tokenizer` does
    each.pad_token = each.pad_token or each.eos_token


def _tokens(tokenizer: Any, lines: list[str]) -> Tokens:
    ids = tokenizer(lines)["input_ids"]
    starts = np.concatenate([[0], np.cumsum([len(line) for line in ids])])
    flat = np.array([token for line in ids for token in line], np.int32)
    labels = np.zeros(len(lines), np.int64)
    return Tokens(flat, np.zeros_like(flat), starts, labels, tokenizer.pad_token_id, "key")


# For what takes seconds. Each of these sets another part of a model or tokenizer.
_EACH_TIME = ("bert", "xlm-roberta", "modernbert", "gemma3_text")
SOME = [
    family if family in _EACH_TIME else pytest.param(family, marks=pytest.mark.slow)
    for family in FAMILIES
]
TRIMMED = {
    family: trim_vocabulary(tokenizer, _tokens(tokenizer, LINES[:40]), CPU)
    for family, tokenizer in TOKENIZERS.items()
}


def _agree(family: str, text: str) -> bool:
    """Returns whether all tokens of a text are kept, after checking that then nothing differs."""
    tokenizer, vocabulary = TOKENIZERS[family], TRIMMED[family]
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


@pytest.mark.parametrize("family", FAMILIES)
def test_text_whose_tokens_are_all_kept_is_tokenized_alike(family):
    assert len(TRIMMED[family].kept) < 0.9 * len(TOKENIZERS[family])
    agreed = [_agree(family, line) for line in LINES]
    assert all(agreed[:40])
    assert 40 < sum(agreed) < len(LINES)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.lists(st.sampled_from(SYLLABLES), min_size=1, max_size=5), max_size=8))
def test_so_is_any_text_whose_tokens_are_all_kept(family, words):
    _agree(family, " ".join("".join(word) for word in words))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_gets_more_unknown_tokens(family):
    tokenizer, trimmed = TOKENIZERS[family], TRIMMED[family].tokenizer
    for text in [*LINES, "Zozo 가ing", "日本語 \u0001", "🙂 the"]:
        unknown = [
            each(text)["input_ids"].count(each.unk_token_id) for each in (tokenizer, trimmed)
        ]
        assert unknown[1] <= unknown[0], text


@pytest.mark.parametrize("family", ["roberta", "modernbert", "llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("text", ["日本語 \u0001", "🙂 Zothe", "naïve\tœuvre\n  x", "\ud7ff한"])
def test_unseen_text_is_spelled_in_bytes_and_none_of_it_is_lost(family, text):
    tokenizer = TRIMMED[family].tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_stay_special_and_pairs_are_joined_alike(family):
    tokenizer, vocabulary = TOKENIZERS[family], TRIMMED[family]
    assert vocabulary.tokenizer.special_tokens_map == tokenizer.special_tokens_map
    pad = vocabulary.tokenizer.pad_token_id
    assert vocabulary.kept[pad] == tokenizer.pad_token_id
    if "roberta" in family:  # which numbers positions from it on
        assert pad == tokenizer.pad_token_id
    theirs, ours = (
        each(LINES[0], LINES[1], return_token_type_ids=True)
        for each in (tokenizer, vocabulary.tokenizer)
    )
    assert vocabulary.kept[ours["input_ids"]].tolist() == theirs["input_ids"]
    assert ours["token_type_ids"] == theirs["token_type_ids"]


def _model(family: str) -> Any:
    torch.manual_seed(0)
    tokenizer = TOKENIZERS[family]
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")
    }
    config = config_of(
        family,
        vocab_size=len(tokenizer) + 3,  # some models have rows without a token
        num_hidden_layers=2,
        max_position_embeddings=80,
        **{key: token for key, token in special.items() if token is not None},
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("family", SOME)
def test_the_outputs_are_the_same_and_a_plain_pipeline_loads_it(tmp_path, family):
    model, vocabulary = _model(family), TRIMMED[family]
    TOKENIZERS[family].save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "whole")
    vocabulary.trim(model)
    assert model.config.vocab_size == len(vocabulary.kept)
    vocabulary.tokenizer.save_pretrained(tmp_path / "trimmed")
    model.save_pretrained(tmp_path / "trimmed")
    kept = [line for line in LINES if _agree(family, line)]
    whole, trimmed = (
        pipeline("text-classification", str(tmp_path / name), top_k=None)(kept, batch_size=8)
        for name in ("whole", "trimmed")
    )
    assert whole == trimmed
    again = AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    assert again.backend_tokenizer.to_str() == vocabulary.tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_check_finds_that_tokenizer_and_model_can_be_trimmed(tmp_path, family):
    _model(family).save_pretrained(tmp_path)
    TOKENIZERS[family].save_pretrained(tmp_path)
    check_tokenizer(str(tmp_path))
    check_trimming(str(tmp_path), "SequenceClassification")


def test_a_check_refuses_a_tokenizer_whose_tokens_would_get_other_ids(tmp_path):
    teacher = make_classifier(tmp_path)
    path = tmp_path / "tokenizer.json"
    tree = json.loads(path.read_text())
    # Added tokens before all others, which a tokenizer.json can't have once it is renumbered.
    del tree["model"]["vocab"]["[CLS]"], tree["model"]["vocab"]["[SEP]"]
    path.write_text(json.dumps(tree))
    with pytest.raises(SpecError) as error:
        check_tokenizer(teacher)
    (problem,) = error.value.problems
    assert problem.key == "student.vocab"
    assert str(tmp_path) in problem.message
    assert "can't be trimmed" in problem.message


def test_a_check_refuses_a_model_with_a_second_table_of_tokens(tmp_path, monkeypatch):
    teacher = make_classifier(tmp_path)
    forward = BertForSequenceClassification.forward

    def with_more(self, input_ids, **kwargs):
        output = forward(self, input_ids, **kwargs)
        output.logits = output.logits + input_ids.float().sin().sum(1, keepdim=True)
        return output

    monkeypatch.setattr(BertForSequenceClassification, "forward", with_more)
    with pytest.raises(SpecError, match="with the embeddings of fewer tokens it answers different"):
        check_trimming(teacher, "SequenceClassification")


def test_several_tokens_that_end_a_text_get_new_ids():
    model, vocabulary = _model("llama"), TRIMMED["llama"]
    ends = TOKENIZERS["llama"].convert_tokens_to_ids(["<|end_of_text|>", "<|reserved|>"])
    dropped = int(np.flatnonzero(vocabulary.table.numpy() < 0)[0])
    model.config.eos_token_id = [*ends, dropped]
    vocabulary.trim(model)
    assert vocabulary.kept[model.config.eos_token_id].tolist() == ends


def test_a_model_that_predicts_tokens_is_refused():
    model = BertForMaskedLM(_model("bert").config)
    with pytest.raises(SpecError, match="does not work with a model that predicts tokens"):
        TRIMMED["bert"].trim(model)


def test_a_model_with_another_vocabulary_is_refused():
    model = _model("bert")
    model.resize_token_embeddings(50)
    with pytest.raises(SpecError, match="the model has 50 tokens"):
        TRIMMED["bert"].trim(model)


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


@pytest.mark.parametrize("family", SOME)
def test_a_trimmed_student_is_trained_beside_its_whole_teacher(tmp_path, family):
    _model(family).save_pretrained(tmp_path / "teacher")
    TOKENIZERS[family].save_pretrained(tmp_path / "teacher")
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
