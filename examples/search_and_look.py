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


def main(space: str | Mapping[str, Any] = "layer_map.yaml", run_dir: str = "runs") -> Run:
    """Searches a space with one seed and shows what it found."""
    # A mapping may stand for the file; settings are changed as `--set` changes them.
    run = search(load_space(space, ["confirm=null", "search.baseline=false"]), run_dir=run_dir)

    board = pd.DataFrame(run.leaderboard())
    print(board[["rank", "name", "state", "score", "share", "parameters", "layer_map", "lr"]])

    # One column a trial; a stopped one has no score at the later steps.
    curves = pd.DataFrame(run.measurements()).pivot(index="step", columns="trial", values="score")
    print(curves)

    complete = board[board["state"] == "complete"]
    good = complete[complete["share"] >= 0.95]
    if not good.empty:
        smallest = good.sort_values("parameters").iloc[0]
        print(f"{smallest['share']:.0%} of the teacher with {smallest['parameters']:,} parameters")

    model, tokenizer = run.load_best()
    batch = tokenizer(["the film was very good", "the plot was awful"], padding=True,
                      return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        print(model(**batch).logits.softmax(-1))
    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
