"""The published recipes of CKD (Park et al., EMNLP 2021, appendix), task by task."""

from __future__ import annotations

from typing import Any

# Temperature, weight of both pair-wise and of both triple-wise terms, learning rate, epochs.
_RECIPES = {
    "cola": (3, 1, 10, 5e-5, 4),
    "sst2": (4, 100, 1000, 4e-5, 4),
    "rte": (3, 1, 10, 5e-5, 6),
    "qnli": (3, 10, 1, 4e-5, 4),
    "mrpc": (4, 1, 1, 3e-5, 4),
    "stsb": (1, 0.1, 0.1, 5e-5, 4),
    "mnli": (4, 100, 1, 4e-5, 4),
    "qqp": (2, 10, 10, 5e-5, 4),
}


def published_recipe(task: str) -> dict[str, Any]:
    """Returns the published losses and training of a task, of CoLA for one that has none."""
    temperature, pair, triple, lr, epochs = _RECIPES.get(task, _RECIPES["cola"])
    return {
        "losses": {
            "wr_pair": {"weight": pair, "distance": "cosine", "discrepancy": "kl"},
            "wr_triple": {"weight": triple, "discrepancy": "l2", "window": 21},
            "ltr_pair": {"weight": pair, "distance": "cosine", "discrepancy": "kl"},
            "ltr_triple": {"weight": triple, "discrepancy": "l2"},
            "logits": {"weight": 1.0, "temperature": float(temperature), "alpha": 0.0},
        },
        "train": {"lr": lr, "epochs": float(epochs), "batch_size": 32},
    }
