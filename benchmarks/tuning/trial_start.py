"""Seconds that a trial takes to start: in a new actor, and in one that has run a trial before.

Number to look at: the median of the reused actors, which should be below a second, also after a
trial of another depth. Each trial is one optimizer step with one evaluation. So the time is that of
starting (processes, imports, the process group, the models, DeepSpeed's engine), one step, two
short evaluations (on dev and on test) and writing the outcome. It is measured with the labels
alone, and with all loss terms and the teacher's targets, which are stored before. On a GPU if there
is one.

    python benchmarks/tuning/trial_start.py
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch

from lkd_tune.config.settings.losses import LABELS_ONLY, LossSettings
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import Architecture
from lkd_tune.config.settings.training import ResourceSettings, TrainSettings
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.models.from_scratch import build_from_scratch
from lkd_tune.records.manifest import write_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.tuning.execution.trainable import DistillationTrainable

MAPS = {2: (0, 2, 4), 3: (0, 1, 2, 4)}
# Number of new actors, and the depths of the further trials in each; its first has depth 2.
FRESH, REUSED = 3, (2, 3, 3, 2, 2, 3)
GPUS = min(1, torch.cuda.device_count())


def make_config(folder: Path, name: str, depth: int, losses: LossSettings) -> dict[str, Any]:
    """Returns the config of a trial of one step."""
    spec = TrialSpec(
        task=TaskSettings(name="acceptability"),
        teacher=str(folder / "teacher"),
        student=StudentSettings(depth=depth),
        layer_map=ResolvedLayerMap(word=MAPS[depth], layer=MAPS[depth]),
        losses=losses,
        train=TrainSettings(steps=1, evaluations=1),
        resources=ResourceSettings(gpus=GPUS),
        seed=0,
    )
    TrialFolder(RunFolder(folder / "run").trial(name)).write_spec(spec)
    return {
        "run": str(folder / "run"),
        "session": "only",
        "cache": str(folder / "cache"),
        "cwd": os.getcwd(),
        "limits": {},
        "name": name,
        "spec": spec.to_json(),
    }


def measure(folder: Path, kind: str, losses: LossSettings) -> None:
    """Prints the times of trials in new actors, and in reused ones by the change of depth."""
    actor_class = ray.remote(num_gpus=GPUS)(DistillationTrainable)

    def timed(name: str, depth: int, actor: Any = None) -> tuple[float, Any]:
        config = make_config(folder, f"{kind}-{name}", depth, losses)
        begin = time.perf_counter()
        if actor is None:
            actor = actor_class.remote(config)
        else:
            ray.get(actor.reset.remote(config))
        result = ray.get(actor.train.remote())
        assert result["state"] == "complete", result["error"]
        return time.perf_counter() - begin, actor

    _, warm = timed("warm-up", 2)  # tokenises, stores targets, and builds DeepSpeed's op
    ray.kill(warm)
    seconds: dict[str, list[float]] = {
        "fresh actor": [], "reused, same depth": [], "reused, another depth": [],
    }  # fmt: skip
    for i in range(FRESH):
        taken, actor = timed(f"fresh-{i}", 2)
        seconds["fresh actor"].append(taken)
        before = 2
        for k, depth in enumerate(REUSED):
            same = "same" if depth == before else "another"
            taken, _ = timed(f"reused-{i}-{k}", depth, actor)
            seconds[f"reused, {same} depth"].append(taken)
            before = depth
        ray.kill(actor)
    print(kind)
    for case, times in seconds.items():
        median, most = statistics.median(times), max(times)
        print(f"  {case:<22}{median:.2f} s (median of {len(times)}, longest {most:.2f})")


def main() -> None:
    """Prints the times with the labels alone and with all losses."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        build_from_scratch(
            Architecture(layers=4, hidden_size=64), TaskSettings(name="acceptability"),
            folder / "teacher",
        )  # fmt: skip
        write_manifest(RunFolder(folder / "run"), {"session": "only"})
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        measure(folder, "labels", LABELS_ONLY)
        measure(folder, "all-losses", LossSettings())
        ray.shutdown()


if __name__ == "__main__":
    main()
