"""Whether loss weights are easier to search in units of the terms' gradient norms.

Numbers to look at: the expected best of 4 and of 12 draws. `as they are` draws each weight from its
range in layer_map.yaml. `in units of the pull` draws it from a range around 1, times the gradient
norm of the logit loss over that of the term (see term_scales.py); then 1 means that a term's
gradient is as large as that of the logits at the start, on any task and at any size. Both use the
same random points and the uniform layer map; all else is as in evidence.py.

    python benchmarks/method/weight_units.py --task acceptability [--draws 24]
    python benchmarks/method/weight_units.py --task sst2 --data DIR --models DIR --out DIR

Folders are those of evidence.py. Finished trainings are kept, so a repeated command continues.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys

from scipy import stats

from benchmarks.method import evidence
from benchmarks.method.term_scales import gradient_norms
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.models.loading import read_depth

_RELATIONS = [name for name, _ in LossSettings().active() if name != "logits"]
_AS_THEY_ARE = (0.1, 30.0)
_IN_UNITS = (0.1, 10.0)


def main() -> None:
    """Trains what is missing and prints two rows for each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    evidence.add_arguments(parser)
    parser.add_argument("--draws", type=int, default=24)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    print("| task | weights | mean | best of 4 | best of 12 | best | above the recipe |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for task in arguments.task.split(","):
        compare(task, arguments)


def compare(task: str, arguments: argparse.Namespace) -> None:
    """Prints a task's rows, and the p of a paired test between them."""
    space = evidence.space_of(task, arguments)
    teacher = evidence.teacher_of(space)
    recipe = evidence.rows_of(task, space, teacher, read_depth(teacher))[evidence.PUBLISHED]
    plain = recipe.model_copy(update={"losses": LossSettings()})
    norms = gradient_norms(plain)
    units = [norms["logits"] / norms[name] for name in _RELATIONS]
    print(f"# {task}: units {', '.join(f'{unit:.3g}' for unit in units)}", file=sys.stderr)
    published = score(f"{task}: recipe", recipe, task, arguments)
    arms = {
        "as they are": (_AS_THEY_ARE, [1.0] * len(units)),
        "in units of the pull": (_IN_UNITS, units),
    }
    scores = {}
    for name, (limits, scales) in arms.items():
        scores[name] = found = [
            score(f"{task}: {name} {i}", drawn(recipe, i, limits, scales), task, arguments)
            for i in range(arguments.draws)
        ]
        print(
            f"| {task} | {name} | {statistics.mean(found):.3f} ± {statistics.stdev(found):.3f} | "
            f"{best_of(4, found):.3f} | {best_of(12, found):.3f} | {max(found):.3f} | "
            f"{sum(value > published for value in found)} of {len(found)} |",
            flush=True,
        )
    print(f"# paired p: {stats.ttest_rel(*scores.values()).pvalue:.3f}")


def drawn(
    recipe: TrialSpec, number: int, limits: tuple[float, float], scales: list[float]
) -> TrialSpec:
    """Returns the recipe with the weights and the temperature of a random point."""
    rng = random.Random(number)
    low, high = map(math.log, limits)
    weights = {
        name: scale * math.exp(low + (high - low) * rng.random())
        for name, scale in zip(_RELATIONS, scales, strict=True)
    }
    losses = LossSettings().with_weights(weights)
    logits = losses.logits.model_copy(update={"temperature": 1 + 3 * rng.random()})
    return recipe.model_copy(update={"losses": losses.model_copy(update={"logits": logits})})


def score(label: str, spec: TrialSpec, task: str, arguments: argparse.Namespace) -> float:
    """Returns a student's mean score over the seeds, on dev, as a search sees it."""
    runs = evidence.seeds_of(label, spec, arguments.out / task, arguments.seeds)
    return statistics.mean(run["dev"][spec.task.metric] for run in runs)


def best_of(count: int, scores: list[float]) -> float:
    """Returns the expected best of some of the draws, taken without replacement."""
    rising, total = sorted(scores), math.comb(len(scores), count)
    return sum(value * math.comb(i, count - 1) for i, value in enumerate(rising)) / total


if __name__ == "__main__":
    evidence.exit_on_spec_error(main)
