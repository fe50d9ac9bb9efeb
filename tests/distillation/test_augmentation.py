"""Copies of training text: what may change, what may not, and that it is done once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import Augmentation, TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.tokenizer_training import train_subword_tokenizer
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.augmentation import augmented_ids, load_training_tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.models.loading import load_model, load_tokenizer
from tests.support.families import WORDS, make_classifier, make_csv
from tests.support.tokenizers_of import KINDS

torch.set_num_threads(1)
CPU = torch.device("cpu")


def _task(folder: Path, **augment: Any) -> TaskSettings:
    return TaskSettings(
        name="own",
        train=make_csv(folder, 48, "train.csv"),
        dev=make_csv(folder, 24, "dev.csv"),
        augment=augment or None,
    )


def _masked_lm(folder: Path, tokenizer: Any) -> str:
    """Writes a masked language model that puts 'very' everywhere, and next to it 'not'."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), intermediate_size=16, **sizes))
    with torch.no_grad():
        model.cls.predictions.bias.zero_()
        for word, score in (("very", 60.0), ("not", 50.0), ("[SEP]", 90.0), ("[UNK]", 90.0)):
            model.cls.predictions.bias[tokenizer.convert_tokens_to_ids(word)] = score
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_split_comes_first_and_its_copies_keep_shape_and_labels(tmp_path):
    teacher = make_classifier(tmp_path / "teacher")
    tokenizer, task = load_tokenizer(teacher), _task(tmp_path, copies=3)
    plain = load_tokens(task, "train", tokenizer, cache=tmp_path / "c")
    tokens = load_training_tokens(task, teacher, tokenizer, CPU, cache=tmp_path / "c")
    assert len(tokens) == 4 * len(plain) == len(tokens.starts) - 1
    assert tokens.key != plain.key
    size = len(plain.ids)
    assert np.array_equal(tokens.ids[:size], plain.ids)
    special = np.isin(plain.ids, tokenizer.all_special_ids)
    for copy in range(1, 4):
        ids = np.array(tokens.ids[copy * size : (copy + 1) * size])
        assert np.array_equal(ids[special], plain.ids[special])
        assert not np.isin(ids[~special], tokenizer.all_special_ids).any()
        changed = (ids != plain.ids)[~special].mean()
        assert 0.3 < changed < 0.5  # 0.4 of the words, none by itself
        rows = slice(copy * len(plain), (copy + 1) * len(plain))
        assert np.array_equal(tokens.labels[rows], plain.labels)
        assert np.array_equal(tokens.lengths[rows], plain.lengths)
    assert not np.array_equal(tokens.ids[size : 2 * size], tokens.ids[2 * size : 3 * size])


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_several_tokens_stay_whole(tmp_path, kind):
    lines = ["doghouse dog house cats sees seesaw"] * 20 + [" ".join(WORDS)] * 20
    tokenizer = KINDS[kind](lines, {"wordpiece": 60, "unigram": 40, "byte_bpe": 300}[kind])
    tokenizer.save_pretrained(tmp_path / "t")
    task = _task(tmp_path)
    tokens = load_tokens(task, "train", load_tokenizer(str(tmp_path / "t")), cache=tmp_path / "c")
    settings = Augmentation(copies=2, probability=1.0)
    asked: list[int] = []

    def predict(positions: np.ndarray) -> np.ndarray:
        asked.extend(positions.tolist())
        return np.full((len(positions), 3), tokenizer.unk_token_id)

    ids = augmented_ids(tokens, settings, tokenizer, predict)
    size = len(tokens.ids)
    replaced = np.flatnonzero(ids[size : 2 * size] != tokens.ids)
    assert sorted(asked) == replaced.tolist() != []
    texts = tokenizer.convert_ids_to_tokens(tokens.ids.tolist())
    ends = set(tokens.starts[1:] - 1)
    for at in replaced:
        text, after = texts[at], texts[at + 1] if at + 1 not in ends else "[end]"
        if kind == "wordpiece":
            assert text in lines[0].split() + WORDS
            assert not after.startswith("##")
        else:
            assert text[0] in "Ġ▁"
            assert text[1:] in lines[0].split() + WORDS
            assert after[0] in "Ġ▁["


def test_it_repeats_by_seed_and_is_made_once(tmp_path):
    teacher = make_classifier(tmp_path / "teacher")

    def load(seed: int, cache: str) -> Tokens:
        task = _task(tmp_path, copies=2, seed=seed)
        return load_training_tokens(
            task, teacher, load_tokenizer(teacher), CPU, cache=tmp_path / cache
        )

    first, again, other = load(0, "a"), load(0, "b"), load(1, "a")
    assert np.array_equal(first.ids, again.ids)
    assert first.key == again.key
    assert not np.array_equal(first.ids, other.ids)
    path = tmp_path / "a" / "tokens" / f"{first.key}.npy"
    before = path.stat().st_mtime_ns
    load(0, "a")
    assert path.stat().st_mtime_ns == before


def test_a_masked_language_model_says_which_words_are_likely(tmp_path):
    teacher = make_classifier(tmp_path / "teacher")
    tokenizer = load_tokenizer(teacher)
    model = _masked_lm(tmp_path / "mlm", tokenizer)
    task = _task(tmp_path, copies=1, probability=1.0, candidates=1, model=model)
    tokens = load_training_tokens(task, teacher, tokenizer, CPU, cache=tmp_path / "c")
    size = len(tokens.ids) // 2
    old, new = (
        tokenizer.convert_ids_to_tokens(np.array(ids).tolist())
        for ids in (tokens.ids[:size], tokens.ids[size:])
    )
    expected = {"very": "not", "[CLS]": "[CLS]", "[SEP]": "[SEP]"}
    assert new == [expected.get(word, "very") for word in old]


def test_neighbours_are_those_in_the_teachers_embeddings(tmp_path):
    teacher = make_classifier(tmp_path / "teacher")
    tokenizer = load_tokenizer(teacher)
    model = load_model(teacher)
    dog, cat = (tokenizer.convert_tokens_to_ids(word) for word in ("dog", "cat"))
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[cat] = 2 * weight[dog]
    model.save_pretrained(teacher)
    task = _task(tmp_path, copies=1, probability=1.0, candidates=1)
    tokens = load_training_tokens(task, teacher, tokenizer, CPU, cache=tmp_path / "c")
    old, new = np.split(np.array(tokens.ids), 2)
    assert set(new[old == dog]) == {cat}
    assert set(new[old == cat]) == {dog}


@pytest.mark.parametrize(
    ("kind", "message"),
    [("other words", "has another vocabulary than the teacher"), ("no head", "has no cls.predict")],
)
def test_a_model_that_can_t_predict_its_words_is_refused(tmp_path, kind, message):
    teacher = make_classifier(tmp_path / "teacher")
    tokenizer = load_tokenizer(teacher)
    if kind == "no head":
        model = make_classifier(tmp_path / "mlm")
    else:
        model = _masked_lm(tmp_path / "mlm", train_subword_tokenizer("wordpiece", WORDS, 200, 40))
    with pytest.raises(SpecError, match=message):
        load_training_tokens(_task(tmp_path, copies=1, model=model), teacher, tokenizer, CPU)


def test_a_trial_trains_on_the_copies_and_is_scored_on_the_text_itself(tmp_path):
    teacher = make_classifier(tmp_path / "teacher")
    spec = {
        "teacher": teacher,
        "student": {"depth": 2, "vocab": "trim"},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "train": {"epochs": 1, "batch_size": 8, "lr": 1e-3, "evaluations": 1},
    }
    found = {}
    for copies in (0, 3):
        task = _task(tmp_path, **({"copies": copies} if copies else {}))
        trial = TrialSpec.model_validate(spec | {"task": task.model_dump()})
        with Distillation(trial, cache=tmp_path / "c") as distillation:
            measurement = next(distillation)
            found[copies] = distillation.tokens("dev")
            own = distillation.tokens("train")
        assert measurement.total_steps == (copies + 1) * 6
        assert len(own) == 48  # the split itself
    assert np.array_equal(found[0].ids, found[3].ids)
    stores = list((tmp_path / "c" / "targets").glob("*/facts.json"))
    assert sorted('"examples": 192' in path.read_text() for path in stores) == [False, True]


def test_a_teacher_is_trained_on_the_text_itself(tmp_path):
    teacher = make_classifier(tmp_path / "teacher")
    task = _task(tmp_path, copies=3)
    tokens = load_training_tokens(task, None, load_tokenizer(teacher), CPU, cache=tmp_path / "c")
    assert len(tokens) == 48


def test_a_number_stands_for_that_of_the_copies(tmp_path):
    task = {"name": "own", "train": "a.csv", "dev": "a.csv"}
    assert TaskSettings(**task, augment=4).augment == Augmentation(copies=4)
    assert TaskSettings(**task, augment=None).augment is None
