"""Korean text with models laid out as the hub's multilingual BERT and XLM-R are."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    pipeline,
)

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import Architecture
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.from_scratch import build_from_scratch
from lkd_tune.models.loading import load_tokenizer
from tests.support.tokenizers_of import unigram, wordpiece

torch.set_num_threads(1)
SHARED = Path(os.environ.get("LKD_SHARED", Path(__file__).parents[3] / "shared"))
NSMC = SHARED / "data" / "nsmc_subset"
needs_nsmc = pytest.mark.skipif(not NSMC.is_dir(), reason=f"no NSMC files in {SHARED}")

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 70,
}


def _lines(name: str, number: int) -> list[list[str]]:
    with (NSMC / name).open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row, _ in zip(rows, range(number + 1), strict=False)]


def _task(folder: Path) -> TaskSettings:
    files = {}
    for name, number in (("train", 300), ("dev", 100)):
        path = folder / f"{name}.tsv"
        rows = _lines(f"{name}.tsv", number)
        path.write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
        files[name] = str(path)
    columns = {"text": "document", "label": "label"}
    return TaskSettings(name="nsmc", columns=columns, max_length=48, **files)


def _write_teacher(folder: Path, kind: str) -> None:
    """Writes a teacher; its tokenizer names the class that the hub's models name."""
    lines = [row[1] for row in _lines("train.tsv", 6000)[1:]]
    tokenizer = (wordpiece if kind == "bert" else unigram)(lines, 8000)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    torch.manual_seed(0)
    if kind == "bert":
        config |= {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
        config |= {"strip_accents": False}
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{t}\n" for t, _ in vocabulary), "utf-8")
        BertForSequenceClassification(
            BertConfig(vocab_size=len(tokenizer), **_SIZES)
        ).save_pretrained(folder)
    else:
        config |= {"tokenizer_class": "XLMRobertaTokenizer"}
        XLMRobertaForSequenceClassification(
            XLMRobertaConfig(vocab_size=len(tokenizer), type_vocab_size=1, pad_token_id=1, **_SIZES)
        ).save_pretrained(folder)
    path.write_text(json.dumps(config))


@needs_nsmc
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_narrow_trimmed_student_of_a_multilingual_teacher(tmp_path, kind):
    _write_teacher(tmp_path / "teacher", kind)
    tokenizer = load_tokenizer(str(tmp_path / "teacher"))
    text = "이 영화는 정말 최고였다"
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    task = _task(tmp_path)
    spec = TrialSpec.model_validate(
        {
            "task": task.model_dump(),
            "teacher": str(tmp_path / "teacher"),
            "student": {"depth": 1, "hidden_size": 16, "vocab": "trim"},
            "layer_map": {"word": (0, 2), "layer": (0, 2)},
            "train": {"steps": 6, "batch_size": 16, "lr": 1e-3, "evaluations": 1},
        }
    )
    with Distillation(spec) as distillation:
        measurement = next(distillation)
        distillation.save_student(tmp_path / "student")
    assert all(loss >= 0 for loss in measurement.losses.values())
    student = load_tokenizer(str(tmp_path / "student"))
    assert len(student) < 0.8 * len(tokenizer)
    assert student.tokenize(text) == tokenizer.tokenize(text)
    assert evaluate_model(str(tmp_path / "student"), task)["dev"] == measurement.metrics
    said = pipeline("text-classification", str(tmp_path / "student"))([text, "Très déçu 별로"])
    assert len(said) == 2


@needs_nsmc
@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_a_vocabulary_from_scratch_cuts_korean_up_into_pieces(tmp_path, kind):
    task = _task(tmp_path)
    form = Architecture(layers=1, hidden_size=16, heads=2, vocabulary=kind, vocabulary_size=1500)
    build_from_scratch(form, task, tmp_path / "teacher")
    tokenizer = load_tokenizer(str(tmp_path / "teacher"))
    assert len(tokenizer) <= 1500
    lines = [row[1] for row in _lines("dev.tsv", 200)[1:]]
    ids = [token for line in tokenizer(lines)["input_ids"] for token in line]
    assert ids.count(tokenizer.unk_token_id) < 0.05 * len(ids)
    # Syllables stay whole: none is taken to its letters as accents are stripped.
    assert "영화" in "".join(tokenizer.tokenize("영화"))
    pair = tokenizer("영화", "최고")
    assert {0, 1} == set(pair["token_type_ids"])
