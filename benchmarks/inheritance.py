"""Whether students that start from earlier ones are better after as many steps of their own.

Look at the last lines: by how much the later trials of a chain are better with `student.init:
nearest` than with `teacher`, in what share of the steps they have what the others have at their
end, and the best of each chain, at equal compute. The maps are drawn at random, the same for both.
The last column trains the last map from the teacher for all the steps that its weights have seen
in the chain: inheriting is worth something of its own only if it is better than that.

    python benchmarks/inheritance.py [--seeds 5] [--trials 4] [--steps 150]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch

from lkd_tune.config.settings.layer_map import random_map
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import load_space
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.models.loading import read_depth
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.ancestors import nearest_student

DEPTH = 3
Curve = list[tuple[int, float]]


def chain(specs: list[TrialSpec], folder: Path, init: str) -> tuple[list[Curve], int]:
    """Returns (step, score) of each trial, and the steps that the last one's weights have seen."""
    run, curves, seen = RunFolder(folder), [], 0
    for number, drawn in enumerate(specs):
        student = drawn.student.model_copy(update={"init": init})
        spec = drawn.model_copy(update={"student": student})
        if init == "nearest":
            spec = spec.model_copy(update={"ancestor": nearest_student(run, spec)})
        held = run.ancestors / f"{number:04d}"
        finish = partial(Distillation.save_student, folder=held)
        curve = [(m.step, m.score) for m in distill(spec, finish=finish)]
        curves.append(curve)
        step, score = curve[-1]
        facts = {"score": score, "step": step, "spec": spec.model_dump(mode="json")}
        (held / "student.json").write_text(json.dumps(facts), "utf-8")
        seen = step + (spec.ancestor.steps if spec.ancestor else 0)
    return curves, seen


def share_needed(curve: Curve, score: float) -> float:
    """Returns the share of the steps after which a curve has a score; 1 if it never has."""
    return next((step / curve[-1][0] for step, found in curve if found >= score), 1.0)


def main() -> None:
    """Prints a row a seed and the figures over all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_space(find_space("layer_map.yaml")).settings
    assert settings.teacher.train is not None  # it is a space that trains its teacher
    teacher = str(train_teacher(settings.task, settings.teacher.train))
    layers = read_depth(teacher)
    train = settings.train.model_copy(
        update={"steps": arguments.steps, "lr": 1.5e-3, "evaluations": 4}
    )
    gains, shares, bests, lasts = [], [], [], []
    print("seed  later trials: teacher  nearest   best: teacher  nearest   last: nearest  as long")
    for seed in range(arguments.seeds):
        rng, specs = random.Random(seed), []
        for number in range(arguments.trials):
            # Of another seed for each, so that no two are the same.
            entries = random_map(rng.randrange(10**6), number, layers, DEPTH)
            specs.append(
                TrialSpec(
                    task=settings.task,
                    teacher=teacher,
                    student=settings.student.model_copy(update={"depth": DEPTH}),
                    layer_map=ResolvedLayerMap(word=entries, layer=entries),
                    train=train,
                    seed=seed,
                )
            )
        with tempfile.TemporaryDirectory() as scratch:
            plain, _ = chain(specs, Path(scratch) / "teacher", "teacher")
            heirs, seen = chain(specs, Path(scratch) / "nearest", "nearest")
        longer = train.model_copy(update={"steps": seen})
        *_, whole = distill(specs[-1].model_copy(update={"train": longer}))
        ends = [[curve[-1][1] for curve in curves] for curves in (plain, heirs)]
        later = [statistics.mean(scores[1:]) for scores in ends]
        gains.append(later[1] - later[0])
        pairs = zip(heirs[1:], plain[1:], strict=True)
        shares += [share_needed(heir, curve[-1][1]) for heir, curve in pairs]
        bests.append(max(ends[1]) - max(ends[0]))
        lasts.append(ends[1][-1] - whole.score)
        print(
            f"{seed:4} {later[0]:22.3f} {later[1]:8.3f} {max(ends[0]):15.3f} {max(ends[1]):8.3f} "
            f"{ends[1][-1]:15.3f} {whole.score:8.3f} ({seen} steps)",
            flush=True,
        )
    for name, values in (
        ("later trials, nearest - teacher", gains),
        ("best of the chain, nearest - teacher", bests),
        ("last trial, nearest - as many steps from the teacher", lasts),
    ):
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: {statistics.mean(values):+.3f} ± {spread:.3f} (standard deviation)")
    print(f"nearest has teacher's last score after {statistics.median(shares):.0%} of the steps")


if __name__ == "__main__":
    main()
