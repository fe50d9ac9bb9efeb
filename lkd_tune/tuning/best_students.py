"""Keeping the best students of a run, and removing the others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import moocore

from lkd_tune.files.atomic import remove_folder, write_atomically
from lkd_tune.files.tombstones import add_tombstone
from lkd_tune.records.measurement import ModelSize
from lkd_tune.records.pareto import Costs, costs_of, front_of, knee_of, normalised
from lkd_tune.records.run import RunFolder
from lkd_tune.records.student_file import read_student
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import LABELS_ALONE


def keep_best(
    run: RunFolder,
    top: int,
    objectives: Sequence[str] = ("score",),
    *,
    protected: Collection[str] = (),
    ended: str | None = None,
) -> list[str]:
    """Moves the best students of complete trials to the run's `students`; removes the others.

    All state is on the disk, so it may be called at any time, and completes what a crash
    interrupted.

    Args:
        run: The run.
        top: How many students to keep.
        objectives: The objectives of the search.
        protected: Trials whose students are kept as well, because their means over several seeds
            rank them, or will. Of those, trials that no sampler drew take none of the `top` places.
        ended: The only trial that has ended since the last call, which saves a look at thousands
            of folders; default: look at all.

    Returns:
        The names of the best `top` students, best first; of equal scores the earlier trial comes
        first. With several objectives only members of the Pareto front are kept: its knee, the one
        with the best score, and those that add most to its hypervolume.
    """
    run.students.mkdir(parents=True, exist_ok=True)
    found: dict[str, tuple[Costs, Path]] = {}
    for folder in sorted(run.students.iterdir()):
        info = None if folder.name.startswith(".") else read_student(folder)
        if info is None:
            shutil.rmtree(folder, ignore_errors=True)  # a crash interrupted its removal
        else:
            found[folder.name] = (_costs(info, objectives), folder)
    trials = run.path / "trials"
    for student in sorted(trials.glob(f"{ended or '*'}/student")):
        name, info = student.parent.name, read_student(student)
        outcome = TrialFolder(student.parent).read_outcome()
        if info is None:
            remove_folder(student)
        elif outcome is None:
            continue  # not scored yet
        elif outcome.state != "complete" or not name.isdigit() or name in found:
            # The trial failed in its scoring, is another seed or an ablation, or the student was
            # fetched again from the run's object store.
            remove_folder(student)
        else:
            found[name] = (_costs(info, objectives), student)
    aside = {
        name for name in protected if TrialFolder(run.trial(name)).read_origin() == LABELS_ALONE
    }
    present = {name: found[name][0] for name in sorted(found) if name not in aside}
    if len(objectives) == 1:
        best = sorted(present, key=lambda name: (present[name], name))[:top]
    else:
        costs = {**_all_costs(run, objectives), **present}
        costs = {name: own for name, own in costs.items() if name not in aside}
        best = _best_of_front(costs, present, top)
    for name in found:
        if name not in best and name not in protected:
            remove_folder(found[name][1])
        elif found[name][1] != run.student(name):
            os.replace(found[name][1], run.student(name))
            add_tombstone(found[name][1])
    return best


def _costs(info: dict[str, Any], objectives: Sequence[str]) -> Costs:
    size = info.get("size")
    return costs_of(objectives, info["score"], ModelSize(**size) if size else None)


def _all_costs(run: RunFolder, objectives: Sequence[str]) -> dict[str, Costs]:
    """Returns the costs of all complete trials, including those whose students were removed."""
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
    """Returns the costs of a trial that ended at `when`, None if it is not complete.

    Cached, because there may be thousands of trials, and all are needed whenever one more ends.
    """
    record = run.read_trial(name)
    if not record.is_numbered or record.state != "complete":
        return None
    return costs_of(objectives, record.score or 0.0, record.size)


def _best_of_front(costs: dict[str, Costs], present: Iterable[str], top: int) -> list[str]:
    """Returns up to `top` names of the Pareto front, best first.

    First its knee, then the best score, then those that add most to the hypervolume.

    Args:
        costs: The costs of all complete trials, which determine the front and its knee.
        present: The trials whose students exist.
        top: How many names to return.
    """
    front = {name: costs[name] for name in front_of(costs) if name in {*present}}
    if not front:
        return []
    points = normalised(front)
    # Beyond the worst value of each objective, so that the ends of the front count as well.
    reference = [1.1] * len(next(iter(points.values())))
    added = moocore.hv_contributions(list(points.values()), ref=reference)
    by_volume = dict(zip(points, added, strict=True))
    knee, score = knee_of(costs, among=front), min(front, key=lambda name: front[name])
    order = sorted(front, key=lambda name: (name != knee, name != score, -by_volume[name], name))
    return order[:top]


def add_test_metrics(run: RunFolder, name: str, metrics: dict[str, float]) -> None:
    """Writes a kept student's metrics on test to its student.json and its trial's test.json."""
    student = read_student(run.student(name))
    assert student is not None  # it was scored, so it exists
    student["test_metrics"] = metrics
    text = json.dumps(student, indent=2, ensure_ascii=False)
    write_atomically(run.student(name) / "student.json", text)
    TrialFolder(run.trial(name)).write_test_metrics(metrics)
