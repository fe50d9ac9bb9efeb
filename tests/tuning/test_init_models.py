"""A search in which a small pre-trained model competes with students made of the teacher."""

import json
from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig

from lkd_tune.export.students import export_students
from lkd_tune.models.from_scratch import build_word_tokenizer
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.report.page import write_report
from lkd_tune.tuning.tuner import run_search
from tests.support.tiny import BAD, FILLERS, GOOD, make_space

pytestmark = [pytest.mark.usefixtures("two_cores"), pytest.mark.slow]


@pytest.mark.parametrize("own_tokenizer", [False, True])
def test_both_kinds_of_students_are_trained_ranked_and_exported(tmp_path, own_tokenizer):
    small = tmp_path / "small"
    words = sorted({*GOOD, *BAD, *FILLERS})
    tokenizer = build_word_tokenizer(words[::-1] if own_tokenizer else words, 32)
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=16, n_layers=3, n_heads=2, hidden_dim=32,
        max_position_embeddings=32, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).base_model.save_pretrained(small)
    tokenizer.save_pretrained(small)
    space = make_space(
        tmp_path,
        student={
            "depth": {"int": [1, 2]},
            "init": {"choice": ["teacher", str(small)]},
            "vocab": {"choice": ["teacher", "trim"]},
        },
        losses={"choice": ["soft_labels", "ckd"]},
        search={
            "trials": 8,
            "recipes": ["soft_labels", "labels"],
            "baseline": True,
            "sampler": "random",
        },
        keep={"top": 8},
    )
    run = RunFolder(tmp_path / "run")
    run_search(space, run)
    rows = [asdict(row) for row in read_leaderboard(run).rows]
    assert {row["state"] for row in rows} <= {"complete", "stopped"}
    kinds = {"small" if "small" in row["init"] else row["init"]: row for row in rows}
    assert kinds.keys() == {"small", "teacher"}
    assert any("from small" in (row["origin"] or "") for row in rows)
    for row in rows:
        is_small = row["init"] == str(small)
        assert row["depth"] == 3 if is_small else row["depth"] in (1, 2)
        compares = row["recipe"] == "ckd" and row["distilled"]
        assert bool(row["word_map"]) == (compares or not is_small)
        assert not (is_small and own_tokenizer and compares)
        assert row["parameters"] < 20_000 if is_small else row["parameters"] > 10_000
    page = write_report(run).read_text(encoding="utf-8")
    assert "starts from" in page
    kept = len([*run.students.iterdir()])
    for folder in export_students(run, kept, tmp_path / "out"):
        spec = json.loads((folder / "student.json").read_text())["spec"]
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        exported = AutoTokenizer.from_pretrained(folder)
        assert len(exported) == model.config.vocab_size
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert ("| starts from | small |" in card) == (spec["student"]["init"] == str(small))
