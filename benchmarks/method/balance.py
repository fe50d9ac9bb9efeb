"""Whether a search finds better students with balanced loss terms than with raw weights.

Numbers to look at: `difference`, gradient minus none, of the winners' scores on the test part,
which chose nothing, and the p of a paired t-test over the search seeds. Both arms search the same
space with equally many trials; they differ in `losses.balance` and in the ranges of the weights.
`none` has the ranges of the shipped spaces, layer_map.yaml for acceptability and glue.yaml for
others. `gradient` has 0.03 to 3 for each of the four relations: in the middle of their ranges they
pull together about as strongly as the logits, which have weight 1. No search starts with
recipes, whose weights are in the units of `none`; --set "search.recipes=[ckd]" changes that.

    python benchmarks/method/balance.py --task acceptability --runs DIR [--seeds 3] [--trials 16]
    python benchmarks/method/balance.py --task cola,stsb --data DIR --models DIR --runs DIR \\
        --set "stsb:teacher={train: {model: DIR}}"
    python benchmarks/method/balance.py --task sst2 --data DIR --runs DIR --depth 4 --epochs 1 \\
        --lr 1.2e-4 --set "sst2:teacher={train: {model: all-mpnet-base-v2, epochs: 1}}" \\
        --set sst2:task.train_examples=3000

Options are those of evidence.py; --seeds are those of the searches. Each search has a folder of its
own below --runs. One that is finished is read, others are resumed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from benchmarks.method import evidence
from lkd_tune.config.space import SearchSpace
from lkd_tune.records.run import RunFolder

_ARMS = ("none", "gradient")
_BALANCED = (0.03, 3)
_RAW = {
    # The ranges of layer_map.yaml, and of glue.yaml.
    True: dict.fromkeys(("wr_pair", "wr_triple", "ltr_pair", "ltr_triple"), (0.1, 30)),
    False: {
        "wr_pair": (0.1, 100),
        "wr_triple": (0.1, 1000),
        "ltr_pair": (0.1, 100),
        "ltr_triple": (0.1, 1000),
    },
}


@dataclass(frozen=True)
class Winner:
    """The scores of a search's best student, and the minutes that its trials held a core."""

    dev: float
    test: float
    cpu_minutes: float


def main() -> None:
    """Runs the searches that are missing and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    evidence.add_arguments(parser)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the searches")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    tasks = arguments.task.split(",")
    seeds = range(1, arguments.seeds + 1)
    found: dict[tuple[str, str], list[Winner]] = {}
    for task in tasks:
        for seed in seeds:  # the arms in turn, so that an unfinished table compares equal seeds
            for arm in _ARMS:
                folder = arguments.runs / task / f"{arm}-{seed}"
                print(f"{task}: {arm}, seed {seed}: {folder}", file=sys.stderr, flush=True)
                space = space_of(task, arm, seed, arguments)
                found.setdefault((task, arm), []).append(winner_of(space, folder))
    show(tasks, found)


def space_of(task: str, arm: str, seed: int, arguments: argparse.Namespace) -> SearchSpace:
    """Returns the space of one search."""
    ranges = _RAW[task == "acceptability"]
    if arm == "gradient":
        ranges = dict.fromkeys(ranges, _BALANCED)
    own = [
        f"losses.balance={arm}",
        *(f"losses.{name}={{loguniform: [{low}, {high}]}}" for name, (low, high) in ranges.items()),
        f"search.seed={seed}",
        "search.recipes=[]",
    ]
    return evidence.space_of(task, arguments, own)


def winner_of(space: SearchSpace, folder: Path) -> Winner:
    """Returns the winner of a search, which is run or resumed unless it is finished."""
    from lkd_tune.results.leaderboard_files import read_leaderboard
    from lkd_tune.tuning.tuner import resume_search, run_search

    run = RunFolder(folder)
    if not run.manifest.exists():
        run_search(space, run, quiet=True)
    elif run.read_manifest().get("finished") is None:
        resume_search(run, quiet=True)
    board = read_leaderboard(run)
    best = board.best
    assert best is not None, f"{folder}: no trial was complete"
    assert best.score is not None
    assert best.test_score is not None
    return Winner(best.score, best.test_score, board.costs["trials"]["cpu_s"] / 60)


def show(tasks: list[str], found: dict[tuple[str, str], list[Winner]]) -> None:
    """Prints a row for each task and arm, and the differences for each task and over all."""
    print("| task | balance | dev | test of each seed | test, mean | CPU-minutes |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (task, arm), winners in found.items():
        dev, test = [w.dev for w in winners], [w.test for w in winners]
        print(
            f"| {task} | {arm} | {mean_and_spread(dev)} | "
            f"{', '.join(f'{score:.3f}' for score in test)} | {mean_and_spread(test)} | "
            f"{sum(w.cpu_minutes for w in winners):.0f} |"
        )
    print("\n| task | difference on dev | on test | p (test) |\n| --- | --- | --- | --- |")
    every: list[tuple[float, float]] = []
    for task in tasks:
        pairs = zip(found[task, "gradient"], found[task, "none"], strict=True)
        own = [(ours.dev - raw.dev, ours.test - raw.test) for ours, raw in pairs]
        every += own
        print_difference(task, own)
    if len(tasks) > 1:
        print_difference("all", every)


def print_difference(label: str, pairs: list[tuple[float, float]]) -> None:
    """Prints the mean differences on dev and test, and the p of the second."""
    dev, test = zip(*pairs, strict=True)
    p = stats.ttest_1samp(test, 0).pvalue if len({*test}) > 1 else float("nan")
    print(f"| {label} | {statistics.mean(dev):+.4f} | {statistics.mean(test):+.4f} | {p:.3f} |")


def mean_and_spread(scores: list[float]) -> str:
    """Returns `0.812 ± 0.004`; the spread is the standard deviation."""
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return f"{statistics.mean(scores):.3f} ± {spread:.3f}"


if __name__ == "__main__":
    evidence.exit_on_spec_error(main)
