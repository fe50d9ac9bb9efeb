"""Models and data small enough that a trial takes a second."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import yaml

from lkd_tune.config.read_space import load_space
from lkd_tune.config.space import SearchSpace

GOOD = ("good", "fine", "great", "lovely", "nice")
BAD = ("bad", "poor", "awful", "nasty", "dull")
FILLERS = ("the", "film", "was", "a", "very", "story", "and", "but", "plot", "so")


def make_csv(folder: Path, rows: int = 64, seed: int = 0, name: str = "train") -> Path:
    """Writes sentences whose label (0 or 1) is the kind of their one telling word."""
    rng = random.Random(f"{name}:{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(rows):
            label = row % 2
            words = rng.choices(FILLERS, k=rng.randint(3, 8))
            words.insert(rng.randint(0, len(words)), rng.choice(GOOD if label else BAD))
            writer.writerow([" ".join(words), label])
    return path


def make_teacher(folder: Path, layers: int = 4, hidden: int = 32, seed: int = 0) -> Path:
    """Writes a BERT classifier with random weights and a tokenizer of the sentences' words."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from lkd_tune.models.from_scratch import build_word_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_word_tokenizer(sorted({*GOOD, *BAD, *FILLERS}), 32)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=32,
        num_labels=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def at_chance(model: Path) -> dict[str, Any]:
    """Returns the settings of a teacher with random weights, which a search would refuse."""
    return {"model": str(model), "allow_chance_level": True}


# The labels alone, so that a tiny student learns the task, or with no learning rate does not.
LABELS = {
    "logits": {"weight": 1, "alpha": 1},
    **dict.fromkeys(["wr_pair", "wr_triple", "ltr_pair", "ltr_triple"], 0),
}


def make_space(folder: Path, **blocks: Any) -> SearchSpace:
    """Returns a space over a teacher and data written into `folder`, as space.yaml is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(make_space_tree(folder, **blocks)))
    return load_space(path)


def make_space_tree(
    folder: Path, rows: int = 64, splits: tuple[str, ...] = ("train", "dev"), **blocks: Any
) -> dict[str, Any]:
    """Returns a space's settings over a teacher and data written into `folder`.

    Each block in `blocks` replaces the default one, `search` and `train` are added to.
    """
    data = folder / "data"
    tree: dict[str, Any] = {
        "task": {
            "name": "tiny",
            **{split: str(make_csv(data, rows, name=split)) for split in splits},
            "metric": "accuracy",
            "max_length": 16,
        },
        "teacher": at_chance(make_teacher(folder / "teacher")),
        "student": {"depth": {"int": [1, 3]}},
        "layer_map": "monotone",
        "losses": {
            "wr_pair": {"loguniform": [0.1, 10]},
            "ltr_triple": {"choice": [0, {"weight": {"loguniform": [1, 100]}}]},
        },
    }
    train = {"batch_size": 16, "steps": 8, "lr": 1e-3, "evaluations": 3}
    search = {
        "trials": 6,
        "concurrency": 1,  # each process takes seconds of a core to start; None: all that fit
        "seed": 1,
        "baseline": False,
        "recipes": [],
    }
    tree["train"] = {**train, **blocks.pop("train", {})}
    tree["search"] = {**search, **blocks.pop("search", {})}
    return {**tree, **blocks}
