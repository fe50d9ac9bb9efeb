"""A run folder made by hand, as a search leaves it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import append_measurement
from lkd_tune.records.trial_record import BASELINE, LABELS_ALONE, Outcome
from tests.support.draws import RandomSuggester

SPACE = """task: acceptability
teacher: t
student:
  depth: {int: [2, 4]}
layer_map: monotone
losses:
  wr_pair: {loguniform: [0.1, 100]}
"""


COSTS = {
    "teacher": {"wall_s": 100.0, "gpu_s": 180.0, "cpu_s": 400.0, "energy_j": 36000.0},
    "test": {"wall_s": 20.0, "gpu_s": 0.0, "cpu_s": 80.0, "energy_j": 0.0},
}


class HandMade:
    """A run folder that trials are added to."""

    def __init__(self, path: Path, **manifest: Any):
        self.run = RunFolder(path)
        write_atomically(self.run.space, SPACE)
        facts = {
            "started": "2026-01-02T03:04:05+00:00",
            "seconds": 90.0,
            "teacher": {
                "model": "t",
                "layers": 6,
                "parameters": 2_000_000,
                "dev": {"matthews": 0.8, "accuracy": 0.9},
                "test": {"matthews": 0.7, "accuracy": 0.85},
            },
            "hardware": {"cpu": "Some CPU", "cpus": 8, "memory_gib": 32.0, "gpus": []},
            "versions": {"lkd_tune": "0.1.0"},
        }
        write_atomically(self.run.manifest, json.dumps({**facts, **manifest}))

    def add(
        self,
        name: str,
        score: float | None = None,
        state: str | None = "complete",
        *,
        depth: int = 3,
        step: int = 30,
        error: str | None = None,
        kept: bool = False,
        test_score: float | None = None,
        like: TrialSpec | None = None,
        origin: str | None = None,
    ) -> TrialSpec:
        """Adds a trial; state None is one that still runs.

        `baseline` and what has the origin `LABELS_ALONE` are trained on the labels alone.
        """
        spec = like or self._draw(name, depth)
        if BASELINE in name or origin == LABELS_ALONE:
            spec = spec.on_labels_alone()
        folder = self.run.trial(name)
        if origin is not None:
            write_atomically(folder / "origin", origin)
        write_atomically(folder / "spec.json", spec.to_json())
        if score is not None:
            for at in range(10, step + 1, 10):
                append_measurement(folder, measurement(at, score))
        if state is not None:
            outcome = Outcome(state=state, error=error, wall_s=60.0, gpu_s=120.0, cpu_s=240.0)
            write_atomically(folder / "outcome.json", outcome.model_dump_json())
        if test_score is not None:
            write_atomically(folder / "test.json", json.dumps({"matthews": test_score}))
        if kept:
            self.keep(name, spec, score)
        return spec

    def _draw(self, name: str, depth: int) -> TrialSpec:
        space = load_space(self.run.space, [f"student.depth={depth}"])
        suggester = RandomSuggester(sum(map(ord, name)))
        return space.draw(suggester, teacher="t", teacher_layers=6, seed=0)

    def keep(self, name: str, spec: TrialSpec, score: float | None) -> None:
        """Writes what stands for a kept student; no part of results looks into the model."""
        facts = {"name": name, "score": score, "spec": spec.model_dump(mode="json")}
        student = self.run.student(name)
        write_atomically(student / "config.json", json.dumps({"num_hidden_layers": 3}))
        # A file of safetensors without tensors: the length of its header, and the header.
        header = json.dumps({"__metadata__": {"weights": name}})
        write_atomically(student / "model.safetensors", chr(len(header)) + 7 * "\0" + header)
        write_atomically(student / "student.json", json.dumps(facts))


def run_with_student(path: Path, task: TaskSettings, model: Path) -> RunFolder:
    """Returns a run whose teacher and only student, 0000, is a real model for a task."""
    teacher = {"model": str(model), "layers": 2, "dev": {str(task.metric): 0.9}}
    made = HandMade(path, teacher=teacher)
    drawn = made._draw("0000", 3)
    spec = drawn.model_copy(update={"task": task, "teacher": str(model)})
    made.add("0000", 0.5, kept=True, like=spec)
    (made.run.student("0000") / "config.json").unlink()
    shutil.copytree(model, made.run.student("0000"), dirs_exist_ok=True)
    return made.run


def full_run(path: Path) -> RunFolder:
    """Returns a run of an earlier version: trials in every state, two students, a baseline."""
    made = HandMade(path)
    made.add("0000", 0.72, kept=True, depth=3)
    made.add("0001", 0.30, "stopped", step=10)
    made.add("0002", None, "failed", error="the loss total is nan at or before step 20")
    winner = made.add("0003", 0.76, kept=True, test_score=0.66, depth=4)
    made.add("0004", 0.50, None, step=20)
    made.add("0005", 0.72, depth=2)
    made.add(BASELINE, 0.70, test_score=0.6, like=winner)
    return made.run


def measurement(step: int, score: float) -> Measurement:
    """Returns one of a trial of 30 steps."""
    return Measurement(
        step=step,
        total_steps=30,
        score=score,
        metrics={"matthews": score, "accuracy": 0.5 + score / 2},
        losses={"wr_pair": 0.25, "total": 1.5},
        lr=1e-3 * (1 - step / 30),
        parameters=1_000_000,
        train_s=step / 2,
        samples_per_s=100.0 + step,
        peak_memory_gib=1 / step,
    )
