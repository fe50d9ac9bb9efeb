"""Keeping the best students, and no others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import moocore

from lkd_tune.files.atomic import remove_folder, write_atomically
from lkd_tune.files.tombstones import note_removal
from lkd_tune.records.pareto import Costs, costs_of, front_of, knee_of, normalised
from lkd_tune.records.run import RunFolder
from lkd_tune.records.size import ModelSize
from lkd_tune.records.student_file import read_student
from lkd_tune.records.trial_folder import TrialFolder

_FACTS = "student.json"


def keep_best(
    run: RunFolder,
    top: int,
    objectives: Sequence[str] = ("score",),
    *,
    ended: str | None = None,
) -> list[str]:
    """Moves the best students of finished trials to where they are kept; removes the others.

    Looks at the disk only, so it may be called at any time, and after a crash finishes what was
    begun.

    Args:
        run: The run.
        top: How many are kept.
        objectives: What is best.
        ended: The only trial that has ended since the last call, so that there is no need to
            look at thousands of folders; none: any may have.

    Returns:
        The names of those that are kept, best first; of equal scores the earlier trial's. With
        several objectives only members of the Pareto front are kept: its knee, the one of the
        best score, and those that add most to its hypervolume.
    """
    run.students.mkdir(parents=True, exist_ok=True)
    found: dict[str, tuple[Costs, Path]] = {}
    for folder in sorted(run.students.iterdir()):
        facts = None if folder.name.startswith(".") else read_student(folder)
        if facts is None:
            shutil.rmtree(folder, ignore_errors=True)  # what a crash left of one being removed
        else:
            found[folder.name] = (_costs(facts, objectives), folder)
    trials = run.path / "trials"
    for student in sorted(trials.glob(f"{ended or '*'}/student")):
        name, facts = student.parent.name, read_student(student)
        outcome = TrialFolder(student.parent).read_outcome()
        if facts is None:
            remove_folder(student)
        elif outcome is None:
            continue  # not scored yet
        elif outcome.state != "complete" or not name.isdigit() or name in found:
            # Of a trial that failed when it was scored, of a comparison, or back from a run's home.
            remove_folder(student)
        else:
            found[name] = (_costs(facts, objectives), student)
    present = {name: found[name][0] for name in sorted(found)}
    if len(objectives) == 1:
        best = sorted(present, key=lambda name: (present[name], name))[:top]
    else:
        best = _best_of_front({**_all_costs(run, objectives), **present}, present, top)
    for name in found:
        if name not in best:
            remove_folder(found[name][1])
        elif found[name][1] != run.student(name):
            os.replace(found[name][1], run.student(name))
            note_removal(found[name][1])
    return best


def _costs(facts: dict[str, Any], objectives: Sequence[str]) -> Costs:
    size = facts.get("size")
    return costs_of(objectives, facts["score"], ModelSize(**size) if size else None)


def _all_costs(run: RunFolder, objectives: Sequence[str]) -> dict[str, Costs]:
    """Returns the costs of all complete trials, those whose students are gone included."""
    found = {}
    for spec in sorted((run.path / "trials").glob("*/spec.json")):
        outcome = spec.with_name("outcome.json")
        if not outcome.exists():
            continue
        name = spec.parent.name
        own = _costs_of_ended(run, name, tuple(objectives), outcome.stat().st_mtime_ns)
        if own is not None:
            found[name] = own
    return found


@cache
def _costs_of_ended(
    run: RunFolder, name: str, objectives: tuple[str, ...], when: int
) -> Costs | None:
    """Returns the costs of a trial that ended `when`, None if it is not complete.

    Each is read once: there may be thousands, and they are asked for whenever one more ends.
    """
    record = run.read_trial(name)
    if not record.is_drawn or record.state != "complete":
        return None
    return costs_of(objectives, record.score or 0.0, record.size)


def _best_of_front(costs: dict[str, Costs], present: Iterable[str], top: int) -> list[str]:
    """Returns up to `top` of the front: its knee, the best score, what adds most to the volume.

    Args:
        costs: Of all complete trials; they make the front, and are what its knee depends on.
        present: Those whose students there are.
        top: How many.
    """
    front = {name: costs[name] for name in front_of(costs) if name in {*present}}
    if not front:
        return []
    points = normalised(front)
    # Beyond the worst of each objective, so that the ends of the front count as well.
    beyond = [1.1] * len(next(iter(points.values())))
    added = moocore.hv_contributions(list(points.values()), ref=beyond)
    by_volume = dict(zip(points, added, strict=True))
    knee, score = knee_of(costs, among=front), min(front, key=lambda name: front[name])
    order = sorted(front, key=lambda name: (name != knee, name != score, -by_volume[name], name))
    return order[:top]


def add_test_metrics(run: RunFolder, name: str, metrics: dict[str, float]) -> None:
    """Notes a kept student's metrics on test in its student.json and its trial's test.json."""
    facts = read_student(run.student(name))
    assert facts is not None  # it was scored, so it is there
    facts["test_metrics"] = metrics
    write_atomically(run.student(name) / _FACTS, json.dumps(facts, indent=2, ensure_ascii=False))
    TrialFolder(run.trial(name)).write_test_metrics(metrics)
