"""The student.json next to a student's weights: its settings, its scores and its costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.trial_record import Outcome


def describe_student(
    name: str,
    spec: TrialSpec,
    last: Measurement,
    outcome: Outcome,
    size: ModelSize | None,
    fine_tuned: Measurement | None = None,
) -> str:
    """Returns the text of a student.json.

    Args:
        name: The trial's name.
        spec: The trial's settings.
        last: Its last measurement.
        outcome: How it ended.
        size: What its architecture costs.
        fine_tuned: Last measurement of the fine-tuning on `evaluate_on`. With `evaluate_on`, a
            student has no score without it.
    """
    scored = fine_tuned if spec.evaluate_on is not None else last
    facts: dict[str, Any] = {
        "name": name,
        "score": scored.score if scored else None,
        "evaluated_on": evaluated_on(spec, fine_tuned),
        "metrics": last.metrics,
        "test_metrics": None,
        "parameters": last.parameters,
        "size": size.model_dump() if size else None,
        "step": last.step,
        "train_s": last.train_s,
        **outcome.model_dump(include={"wall_s", "gpu_s", "cpu_s"}),
        "spec": spec.model_dump(mode="json"),
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


def read_student(folder: Path) -> dict[str, Any] | None:
    """Returns the content of a student's student.json; None if there is no such file."""
    try:
        return json.loads((folder / "student.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def evaluated_on(spec: TrialSpec, fine_tuned: Measurement | None) -> dict[str, Any] | None:
    """Returns the entry for the task that gives the score; None if that is the trial's own task.

    Args:
        spec: The trial's settings.
        fine_tuned: Last measurement of the fine-tuning, None before there is one.
    """
    if spec.evaluate_on is None:
        return None
    task = spec.evaluate_on.task
    metrics = fine_tuned.metrics if fine_tuned else None
    return {"task": task.name, "metric": task.metric, "metrics": metrics}


def check_empty(folder: Path | None) -> None:
    """Checks that a folder for a student is empty or does not exist.

    Raises:
        SpecError: If it is not.
    """
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError(Problem("--to", "", f"{folder} is not empty; name a new folder"))
