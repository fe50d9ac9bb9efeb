"""The gradient norm of each loss term before the first step, by task.

Numbers to look at: the differences between tasks in a column: the norm of a term's gradient at
weight 1, over all parameters, relative to the logit loss. If it is a tenth of that on another task,
the same weight has a tenth of the effect there. Maps are the presets, and the student has the
teacher's layers of its map. Of maps that copy the first layers the student equals the teacher's
bottom, so the relations have no gradient.

    python benchmarks/method/term_scales.py [--task acceptability] [--depths 2,3,4]
    python benchmarks/method/term_scales.py --task cola,sst2 --data DIR --models DIR

DIR/cola/train.tsv and dev.tsv are the files of a task, DIR/minilm-cola is its teacher, as in
evidence.py.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.method import evidence
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.models.loading import read_depth


def main() -> None:
    """Prints a row for each task, depth and map."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    evidence.add_arguments(parser)
    parser.add_argument("--depths", default="2,3,4")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    columns = [
        "task",
        "layer map",
        *(name for name, _ in LossSettings().active() if name != "logits"),
    ]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for task in arguments.task.split(","):
        for depth in map(int, arguments.depths.split(",")):
            arguments.depth = depth
            space = evidence.space_of(task, arguments)
            teacher = evidence.teacher_of(space)
            for preset in ("skip", "last", "first"):
                layer_map = preset_map(preset, read_depth(teacher), depth)
                spec = TrialSpec(
                    task=space.settings.task,
                    teacher=teacher,
                    student=space.settings.student,
                    layer_map=ResolvedLayerMap(word=layer_map, layer=layer_map),
                    losses=LossSettings(),
                    train=space.settings.train,
                )
                norms = gradient_norms(spec)
                logits = norms.pop("logits")
                cells = " | ".join(f"{norm / logits:.2g}" for norm in norms.values())
                print(f"| {task} | {'-'.join(map(str, layer_map))} | {cells} |", flush=True)


def gradient_norms(spec: TrialSpec) -> dict[str, float]:
    """Returns the gradient norm of each active term at weight 1, as a search measures it."""
    from lkd_tune.distillation.balance import measure_norms

    terms = {name: [term.model_copy(update={"weight": 1.0})] for name, term in spec.losses.active()}
    (norms,) = measure_norms([spec], terms)
    return {name: norm for name, (norm,) in norms.items()}


if __name__ == "__main__":
    evidence.exit_on_spec_error(main)
