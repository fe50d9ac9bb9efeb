"""Keeping the best students, and no others."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from lkd_tune.search.trial_folder import TrialFolder, remove_folder
from lkd_tune.spec.run import BASELINE, RunFolder, write_atomically

_FACTS = "student.json"


def keep_best(run: RunFolder, top: int) -> list[str]:
    """Moves the best students of finished trials to where they are kept; removes the others.

    Looks at the disk only, so it may be called at any time, and after a crash finishes what was
    begun.

    Args:
        run: The run.
        top: How many are kept.

    Returns:
        The names of those that are kept, best first; of equal scores the earlier trial's.
    """
    run.students.mkdir(parents=True, exist_ok=True)
    found: dict[str, tuple[float, Path]] = {}
    for folder in sorted(run.students.iterdir()):
        facts = None if folder.name.startswith(".") else read_student(folder)
        if facts is None:
            shutil.rmtree(folder, ignore_errors=True)  # what a crash left of one being removed
        else:
            found[folder.name] = (facts["score"], folder)
    for student in sorted((run.path / "trials").glob("*/student")):
        name, facts = student.parent.name, read_student(student)
        outcome = TrialFolder(student.parent).read_outcome()
        if facts is None or name == BASELINE:
            remove_folder(student)
        elif outcome is not None and outcome.state == "complete" and name not in found:
            found[name] = (facts["score"], student)
    ranked = sorted(found, key=lambda name: (-found[name][0], name))
    for name in ranked[top:]:
        remove_folder(found[name][1])
    for name in ranked[:top]:
        if found[name][1] != run.student(name):
            os.replace(found[name][1], run.student(name))
    return ranked[:top]


def read_student(folder: Path) -> dict[str, Any] | None:
    """Returns the student.json of a student, None if there is none."""
    try:
        return json.loads((folder / _FACTS).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None


def add_test_metrics(run: RunFolder, name: str, metrics: dict[str, float]) -> None:
    """Notes a kept student's metrics on test in its student.json and its trial's test.json."""
    facts = read_student(run.student(name))
    assert facts is not None  # it was scored, so it is there
    facts["test_metrics"] = metrics
    write_atomically(run.student(name) / _FACTS, json.dumps(facts, indent=2, ensure_ascii=False))
    TrialFolder(run.trial(name)).write_test_metrics(metrics)
