"""Finished students that later ones start from (`student.init: nearest`).

A student starts from the finished one of the same shape with the nearest layer map. Of students
with the same maps the best alone is ever the nearest, so no other needs to be held. They lie in the
run's `ancestors`, as links to the files of the students that are kept or dropped beside them: held
is what would be lost, and nothing is stored twice.

All of it is read from the disk, so it holds after a crash, too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from lkd_tune.config.settings.layer_map import map_distance
from lkd_tune.config.trial import Ancestor, TrialSpec
from lkd_tune.files.atomic import atomic_folder, remove_folder
from lkd_tune.records.run import RunFolder
from lkd_tune.records.student_file import read_student
from lkd_tune.records.trial_folder import TrialFolder


@dataclass(frozen=True)
class _Student:
    """A finished student whose weights are there."""

    name: str
    folder: Path
    score: float
    steps: int
    spec: TrialSpec


def nearest_student(run: RunFolder, spec: TrialSpec) -> Ancestor | None:
    """Returns the held student that a trial's is to start from; None if there is none like it.

    Of equally near ones it is the one of the best score, and of these the earliest.
    """
    near = []
    for student in _held(run):
        distance = _distance(student.spec, spec)
        if distance is not None:
            near.append((distance, -student.score, student.name, student))
    if not near:
        return None
    distance, *_, student = min(near, key=lambda each: each[:3])
    folder = str(run.ancestors / student.name)
    return Ancestor(trial=student.name, folder=folder, steps=student.steps, distance=distance)


def hold_students(run: RunFolder) -> None:
    """Holds the finished students that later ones may start from, before they are dropped."""
    best = best_of_each_map(run)
    held = {student.name for student in _held(run)}
    for student in _finished(run):
        if student.name in best and student.name not in held:
            with atomic_folder(run.ancestors / student.name) as draft:
                shutil.copytree(student.folder, draft, copy_function=_link, dirs_exist_ok=True)


def drop_ancestors(run: RunFolder, needed: Collection[str]) -> None:
    """Removes the held students that are not needed, and what a crash left of one."""
    for folder in [*run.ancestors.iterdir()] if run.ancestors.exists() else []:
        if folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.name not in needed:
            remove_folder(folder)


def best_of_each_map(run: RunFolder) -> set[str]:
    """Returns the names of the students, held or about to be, that can be the nearest of any."""
    students = {student.name: student for student in (*_finished(run), *_held(run))}
    best: dict[str, _Student] = {}
    for student in sorted(students.values(), key=lambda each: (-each.score, each.name)):
        best.setdefault(_place(student.spec), student)
    return {student.name for student in best.values()}


def _held(run: RunFolder) -> Iterator[_Student]:
    for folder in sorted(run.ancestors.glob("[!.]*")):
        if (student := _read(folder.name, folder)) is not None:
            yield student


def _finished(run: RunFolder) -> Iterator[_Student]:
    """Gives the students that were kept, and those of which that is not decided yet."""
    for folder in sorted(run.students.glob("[!.]*")):
        if (student := _read(folder.name, folder)) is not None:
            yield student
    for folder in sorted((run.path / "trials").glob("*/student")):
        outcome = TrialFolder(folder.parent).read_outcome()
        if outcome is None or outcome.state != "complete":
            continue
        if (student := _read(folder.parent.name, folder)) is not None:
            yield student


def _read(name: str, folder: Path) -> _Student | None:
    facts = read_student(folder)
    if facts is None:
        return None
    spec = TrialSpec.model_validate(facts["spec"])
    steps = facts["step"] + (spec.ancestor.steps if spec.ancestor else 0)
    return _Student(name, folder, facts["score"], steps, spec)


def _distance(one: TrialSpec, other: TrialSpec) -> int | None:
    """Returns how far the maps of two trials are apart; None if their students can't be alike."""
    if _shape(one) is None or _shape(one) != _shape(other):
        return None
    words = map_distance(one.layer_map.word, other.layer_map.word)
    layers = map_distance(one.layer_map.layer, other.layer_map.layer)
    return None if words is None or layers is None else words + layers


def _shape(spec: TrialSpec) -> str | None:
    """Returns what students have to have in common; None for one made from a model of its own."""
    if spec.student.made_from not in ("teacher", "random"):
        return None
    return spec.student.model_dump_json(exclude={"init"})


def _place(spec: TrialSpec) -> str:
    return f"{_shape(spec)} {spec.layer_map.word} {spec.layer_map.layer}"


def _link(source: str, target: str) -> str:
    """Gives a file a second name; copies it where the file system has no such links."""
    try:
        os.link(source, target)
        return target
    except OSError:
        return str(shutil.copy2(source, target))
