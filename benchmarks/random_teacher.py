"""A teacher with random weights, random sentences and a trial, for measuring speed and memory."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from lkd_tune.config.trial import TrialSpec
from lkd_tune.models.from_scratch import build_word_tokenizer

LENGTH = 128  # tokens at most


def make_data(
    folder: Path, rows: int, shortest: int = LENGTH - 2, longest: int = LENGTH - 2
) -> None:
    """Writes CSV files of random sentences, and the tokenizer of the teacher.

    Args:
        folder: Gets `data.csv`, `dev.csv` and `teacher`.
        rows: Number of sentences in `data.csv`.
        shortest: Words of a sentence at least.
        longest: Words of a sentence at most.
    """
    rng, lengths = random.Random(0), random.Random(1)
    words = [f"word{i}" for i in range(200)]
    sizes = [lengths.randint(shortest, longest) for _ in range(rows)]
    lines = [f"{' '.join(rng.choices(words, k=k))},{i % 2}" for i, k in enumerate(sizes)]
    (folder / "data.csv").write_text("\n".join(["text,label", *lines]) + "\n", "utf-8")
    (folder / "dev.csv").write_text("text,label\nword1 word2,0\nword3,1\n", "utf-8")
    build_word_tokenizer(words, LENGTH).save_pretrained(folder / "teacher")


def make_teacher(folder: Path, layers: int, hidden: int) -> int:
    """Writes a BERT with random weights; returns the number of its parameters."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    model.save_pretrained(folder / "teacher")
    return model.num_parameters()


def make_spec(folder: Path, layers: int, batch: int, steps: int, seed: int = 0) -> TrialSpec:
    """Returns a trial whose student has every second layer of the teacher."""
    every_second = tuple(range(0, layers + 1, 2))
    return TrialSpec.model_validate(
        {
            "task": {
                "name": "random",
                "train": str(folder / "data.csv"),
                "dev": str(folder / "dev.csv"),
            },
            "teacher": str(folder / "teacher"),
            "student": {"depth": len(every_second) - 1},
            "layer_map": {"word": every_second, "layer": every_second},
            "train": {"steps": steps, "batch_size": batch, "evaluations": 1},
            "seed": seed,
        }
    )
