"""How strongly each loss term pulls at a student before its first step, task by task.

Look at how a column differs between tasks: the norm of a term's gradient at weight 1, over all
parameters, as a multiple of the logit loss's. Where one task's is a tenth of another's, the same
weight means ten times less there. Maps are the presets, student and map carved alike; of the maps
that copy the teacher's first layers the student is the teacher's own bottom, so nothing pulls.

    python benchmarks/term_scales.py [--task acceptability] [--depths 2,3,4]
    python benchmarks/term_scales.py --task cola,sst2 --data DIR --models DIR

DIR/cola/train.tsv and dev.tsv are a task's files, DIR/minilm-cola its teacher, as in evidence.py.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import evidence

from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.losses import TERM_NAMES, LossSettings
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.models.loading import read_depth

_BATCHES = 4


def main() -> None:
    """Prints a row for each task, depth and map."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    evidence.add_arguments(parser)
    parser.add_argument("--depths", default="2,3,4")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    print("| task | layer map | wr_pair | wr_triple | ltr_pair | ltr_triple |")
    print("| --- | --- | --- | --- | --- | --- |")
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
                *relations, logits = gradient_norms(spec)
                cells = " | ".join(f"{norm / logits:.2g}" for norm in relations)
                print(f"| {task} | {'-'.join(map(str, layer_map))} | {cells} |", flush=True)


def gradient_norms(spec: TrialSpec) -> list[float]:
    """Returns the norm of each term's gradient at weight 1, the mean over some batches."""
    import torch

    from lkd_tune.distillation.engine import Distillation

    norms = torch.zeros(len(TERM_NAMES))
    with Distillation(spec) as distillation:
        losses, student = distillation._losses, distillation._engine.module.train()
        parameters = [p for p in student.parameters() if p.requires_grad]
        maps = losses.maps(0)
        for examples in itertools.islice(distillation._batches.starting_at(0), _BATCHES):
            batch = losses.read(examples, 0)
            counts = losses.objective.counts([batch], maps)
            for i, loss in enumerate(losses.sums(student, batch, maps)):
                mean = loss.total / counts[i].clamp(min=1).float()
                gradients = torch.autograd.grad(
                    mean, parameters, retain_graph=True, allow_unused=True
                )
                norms[i] += torch.cat([g.flatten() for g in gradients if g is not None]).norm()
    return (norms / _BATCHES).tolist()


if __name__ == "__main__":
    evidence.told_plainly(main)
