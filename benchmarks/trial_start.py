"""How long a trial takes to start: in a fresh actor, and in one that has run a trial before.

Look at the ratio. Each trial is one optimizer step with one evaluation, so what is measured is
starting: processes, imports, the process group, the models and DeepSpeed's engine.

    python benchmarks/trial_start.py
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from lkd_tune.distill.teacher import build_from_scratch
from lkd_tune.search.manifest import write_manifest
from lkd_tune.search.trainable import DistillationTrainable
from lkd_tune.search.trial_folder import TrialFolder
from lkd_tune.spec.architecture import Architecture
from lkd_tune.spec.losses import LABELS_ONLY
from lkd_tune.spec.run import RunFolder
from lkd_tune.spec.settings import StudentSettings, TaskSettings, TrainSettings
from lkd_tune.spec.trial import ResolvedLayerMap, TrialSpec


def make_config(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Returns the config of a trial of one step."""
    spec = TrialSpec(
        task=TaskSettings(name="acceptability"),
        teacher=str(folder / "teacher"),
        student=StudentSettings(depth=2),
        layer_map=ResolvedLayerMap(word=(0, 2, 4), layer=(0, 2, 4)),
        losses=LABELS_ONLY,
        train=TrainSettings(steps=1, evaluations=1),
        seed=seed,
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


def main() -> None:
    """Prints both times and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        build_from_scratch(
            Architecture(layers=4, hidden_size=64), TaskSettings(name="acceptability"),
            folder / "teacher",
        )  # fmt: skip
        run = RunFolder(folder / "run")
        write_manifest(run, {"session": "only"})
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        actor_class = ray.remote(DistillationTrainable)

        def timed(name: str, actor: Any = None) -> tuple[float, Any]:
            config = make_config(folder, name, 0)
            begin = time.perf_counter()
            if actor is None:
                actor = actor_class.remote(config)
            else:
                ray.get(actor.reset.remote(config))
            ray.get(actor.train.remote())
            return time.perf_counter() - begin, actor

        _, warm = timed("warm-up")  # tokenises, and builds DeepSpeed's op if there is none
        ray.kill(warm)
        fresh, reused = [], []
        for i in range(3):
            seconds, actor = timed(f"fresh-{i}")
            fresh.append(seconds)
            for k in range(3):
                reused.append(timed(f"reused-{i}-{k}", actor)[0])
            ray.kill(actor)
        ray.shutdown()
    slow, fast = statistics.median(fresh), statistics.median(reused)
    print(f"fresh actor  {slow:.2f} s\nreused actor {fast:.2f} s\n{slow / fast:.0f} times faster")


if __name__ == "__main__":
    main()
