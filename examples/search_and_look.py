"""A search from Python, and what came out of it as tables.

    python examples/search_and_look.py              # the shipped space, some minutes on two cores
    python examples/search_and_look.py my_space.yaml

What to look at: the leaderboard, the learning curves, and the smallest student that keeps 95 % of
the teacher's score.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from lkd_tune import Run, load_space, search

# Of the shipped space's task: an acceptable one, and one that is not.
SENTENCES = ("the boys behind the pilot smile", "the boys behind the pilot smiles")


def main(space: str | Mapping[str, Any] = "layer_map.yaml", run_dir: str = "runs") -> Run:
    """Searches a space with one seed and shows what it found."""
    # A mapping may stand for the file; settings are changed as `--set` changes them.
    run = search(load_space(space, ["confirm=null", "search.baseline=false"]), run_dir=run_dir)

    board = pd.DataFrame(run.leaderboard())
    complete = board[board["rank"].notna()].astype({"rank": int})
    shown = ["rank", "name", "score", "share", "parameters", "layer_map", "lr"]
    print(complete[shown].to_string(index=False))

    # One column a trial; those that were stopped have no score at the later steps.
    curves = pd.DataFrame(run.measurements()).pivot(index="step", columns="trial", values="score")
    print(curves[complete["name"].head(4)].to_string())

    good = complete[complete["share"] >= 0.95]
    if not good.empty:
        smallest = good.sort_values("parameters").iloc[0]
        print(f"{smallest['share']:.0%} of the teacher with {smallest['parameters']:,} parameters")

    model, tokenizer = run.load_best()
    for text in SENTENCES:
        with torch.inference_mode():
            (probabilities,) = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)
        print(f"{text:<38}", *(f"{probability:.2f}" for probability in probabilities))
    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
