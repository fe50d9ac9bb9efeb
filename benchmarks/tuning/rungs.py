"""How well early scores predict final ones, and the gain of early stopping, on a task's own curves.

Numbers to look at: the rank correlations, and the best row of the table. Simulated searches draw
trials at random from those of a run, two at a time, and stop them at rungs as a search does. The
trials of the run must have been trained to the end whatever they scored:

    lkd-tune search --space SPACE --name all --set search.sampler=random \\
        --set search.scheduler=none --set search.recipes=[] --set search.trials=24
    python benchmarks/tuning/rungs.py runs/all [--evaluations 3] [--searches 1500]

With `--against PAIR START TRAINING` it also prints how much sooner such a search has the best of 8
trials that plain Ray Tune trains to the end. Plain Ray Tune takes PAIR seconds for two trials. The
search takes START seconds before its first trials and TRAINING for two that are not stopped.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
from pathlib import Path

from scipy.stats import spearmanr

from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.schedulers.asha import SuccessiveHalving

Curve = tuple[Measurement, ...]
AS_SHIPPED = 2.0
FACTORS = {"none": None, "not the best 1/2": AS_SHIPPED, "not the best 1/3": 3.0}
TIMES = (2, 3, 4, 6, 8)  # in complete trainings
PLAIN = 8


def search(
    curves: list[Curve], factor: float | None, until: float, rng: random.Random
) -> list[tuple[float, float]]:
    """Returns (end, score) of the trials that were trained to the end; ends in trainings."""
    rungs = SuccessiveHalving(factor) if factor else None
    ends: list[tuple[float, float]] = []
    names = itertools.count()
    # Time of the next measurement, name of the trial, its curve, index of the measurement.
    due: list[tuple[float, int, Curve, int]] = []

    def begin(now: float) -> None:
        curve = rng.choice(curves)
        heapq.heappush(due, (now + curve[0].share, next(names), curve, 0))

    begin(0.0)
    begin(0.0)
    while due[0][0] <= until:
        now, name, curve, i = heapq.heappop(due)
        measured = curve[i]
        if measured.finished:
            ends.append((now, measured.score))
            begin(now)
        elif rungs is None or rungs.continues(str(name), measured):
            after = now + curve[i + 1].share - measured.share
            heapq.heappush(due, (after, name, curve, i + 1))
        else:
            begin(now)
    return ends


def against_plain(curves: list[Curve], costs: tuple[float, float, float], searches: int) -> None:
    """Prints how many times sooner a search has the best of the plain trials."""
    pair, start, training = costs
    whole = pair * PLAIN / 2
    ratios: dict[str, list[float]] = {"than it came there": [], "than all of its time": []}
    for seed in range(searches):
        rng = random.Random(seed)
        plain = [rng.choice(curves)[-1].score for _ in range(PLAIN)]
        best = max(plain)
        came = (plain.index(best) // 2 + 1) * pair
        ends = search(curves, AS_SHIPPED, (whole - start) / training, rng)
        found = next((start + at * training for at, score in ends if score >= best), None)
        for ratio, seconds in zip(ratios.values(), (came, whole), strict=True):
            ratio.append(seconds / found if found else 0.0)
    for name, found_ratios in ratios.items():
        often = sum(ratio >= 5 for ratio in found_ratios) / searches
        median = statistics.median(found_ratios)
        print(f"the best of {PLAIN} plain trials {median:.1f} times sooner {name} (median); "
              f"in {often:.0%} of searches at least 5 times")  # fmt: skip


def main() -> None:
    """Prints the correlations and a row for each rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--searches", type=int, default=1500)
    parser.add_argument("--evaluations", type=int, help="stop only at the last N of them")
    parser.add_argument("--against", type=float, nargs=3, metavar=("PAIR", "START", "TRAINING"))
    arguments = parser.parse_args()
    records = RunFolder(arguments.run).read_trials()
    curves = [r.measurements for r in records if r.is_drawn and r.state == "complete"]
    if not curves:
        parser.error(f"{arguments.run}: has no drawn trial that was trained to the end")
    last = [curve[-1].score for curve in curves]
    print(
        f"{len(curves)} trials, {min(last):.3f} to {max(last):.3f}; rank correlation with the last"
    )
    for i, measured in enumerate(curves[0][:-1]):
        found = spearmanr([curve[i].score for curve in curves], last).statistic
        print(f"  of the score at 1/{2**measured.halvings} of the steps: {found:.2f}")
    if arguments.evaluations:
        curves = [curve[-arguments.evaluations :] for curve in curves]
    print("mean of the best after so many trainings: " + ", ".join(map(str, TIMES)))
    for name, factor in FACTORS.items():
        best: list[list[float]] = [[] for _ in TIMES]
        for seed in range(arguments.searches):
            ends = search(curves, factor, TIMES[-1], random.Random(seed))
            for scores, time in zip(best, TIMES, strict=True):
                scores.append(max((score for at, score in ends if at <= time), default=0.0))
        print(f"{name:<17}" + "  ".join(f"{statistics.mean(scores):.4f}" for scores in best))
    if arguments.against:
        against_plain(curves, tuple(arguments.against), arguments.searches)


if __name__ == "__main__":
    main()
