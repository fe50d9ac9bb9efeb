"""Accuracy of a teacher just after pruning its width, by importance and at random.

Numbers to look at: the columns of a row. All models of a row have the same shape and no further
training, so the columns differ only in which dimensions, heads and neurons are kept: the most
important ones, or random ones (mean and standard deviation over the seeds).

    python benchmarks/method/pruned_width.py --teacher DIR --task sst2 --train train.tsv
        --dev dev.tsv [--widths 512/8/2048,384/6/1536] [--seeds 3] [--threads 1]

A width is hidden size / heads / neurons; heads are of the teacher's size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.width import Width
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.evaluation.scoring import evaluate
from lkd_tune.files.cache import cache_dir
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.width.importance import Importance, load_importance
from lkd_tune.models.width.pruning import prune_width


def main() -> None:
    """Prints a row for each width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("teacher", "task", "train", "dev"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--widths", default="512/8/2048,384/6/1536")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task = TaskSettings(name=arguments.task, train=arguments.train, dev=arguments.dev)
    teacher = load_model(arguments.teacher, kind_of(task).head)
    tokenizer, host, cache = load_tokenizer(arguments.teacher), torch.device("cpu"), cache_dir()
    train, dev = (load_tokens(task, name, tokenizer, cache=cache) for name in ("train", "dev"))
    measured = load_importance(arguments.teacher, teacher, train, host, Path(cache))

    def score(width: Width, importance: Importance) -> float:
        return evaluate(prune_width(teacher, width, importance), task, dev, host)[task.metric]

    print(f"teacher: {evaluate(teacher, task, dev, host)[task.metric]:.3f}", flush=True)
    print("| hidden size, heads, neurons | by importance | at random |\n| --- | --- | --- |")
    for text in arguments.widths.split(","):
        hidden, heads, neurons = map(int, text.split("/"))
        width = Width(hidden, heads, neurons)
        chosen = score(width, measured)
        at_random = [score(width, _shuffled(measured, seed)) for seed in range(arguments.seeds)]
        mean, spread = np.mean(at_random), np.std(at_random, ddof=1)
        print(f"| {text} | {chosen:.3f} | {mean:.3f} ± {spread:.3f} |", flush=True)


def _shuffled(importance: Importance, seed: int) -> Importance:
    rng = np.random.default_rng(seed)
    # Each layer's scores in another order.
    parts = {name: rng.permuted(part, axis=-1) for name, part in vars(importance).items()}
    return Importance(**parts)


if __name__ == "__main__":
    main()
