"""The preparation of a search: teacher, stored targets, fine-tuning data, latencies.

Each `ensure_` function does nothing if an earlier session has done its part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lkd_tune.config.errors import SpecError
from lkd_tune.config.objectives import OBJECTIVES
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.files.atomic import write_once
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.progress_file import progress_path, read_progress
from lkd_tune.records.trial_folder import read_measurements
from lkd_tune.tuning.session import Session

if TYPE_CHECKING:
    from lkd_tune.tuning.preparation.worker import PreparationWorker

# The most students that are timed before the trials start, and the most if latency is an objective
# or limited.
_MAX_TIMED, _MAX_TIMED_IF_LATENCY_COUNTS = 4, 32


def ensure_teacher(session: Session, worker: PreparationWorker) -> dict[str, Any] | None:
    """Returns what the manifest holds of the teacher, None if interrupted.

    The teacher is trained, if the settings say so, and scored.

    Raises:
        SpecError: If it can't be loaded, or has learned nothing of the task.
    """
    from lkd_tune.models.teacher_size import teacher_depth
    from lkd_tune.tuning.preparation.jobs import prepare_teacher

    settings, run, view = session.settings, session.run, session.view
    teacher = run.read_manifest().get("teacher")
    if teacher is None:
        trained = settings.teacher.train is not None
        view.phase("training the teacher" if trained else "scoring the teacher")
        progress = run.path / "teacher"
        progress_path(progress).unlink(missing_ok=True)  # of a session that was interrupted
        # On one machine all trials see the cache. On a cluster some nodes may not, now or later;
        # they all see the run folder.
        copy = str(progress / "model") if session.is_multi_node else None
        if run.remote_uri is not None:  # it has to outlive this machine
            copy = f"{run.remote_uri}/teacher/model"
        teacher = worker.run(
            "teacher",
            prepare_teacher,
            settings.teacher.model_dump_json(),
            settings.task.model_dump_json(),
            session.cache,
            session.cwd,
            str(progress),
            copy,
            poll=lambda: view.teacher_trains(
                read_measurements(progress), read_progress(progress_path(progress))
            ),
        )
        if teacher is None:
            return None
        node = teacher.pop("node")
        for warning in teacher.pop("warnings"):
            view.note(warning)
        teacher = {"layers": teacher_depth(settings.teacher), **teacher}
        update_manifest(run, teacher=teacher, hardware=node)
    score = teacher["dev"][settings.task.metric]
    view.teacher_scored(score)
    problem = chance_problem(settings, score, teacher.get("constant", 0.0))
    if problem is not None:
        if not settings.teacher.allow_chance_level and not run.read_trials():
            raise SpecError(session.space.source.problem(("teacher",), problem))
        view.note(f"warning: {problem}")
    return teacher


def chance_problem(settings: SpaceSettings, score: float, constant: float) -> str | None:
    """Returns what is wrong with a teacher whose score is too low to learn from, else None.

    Args:
        settings: The settings of the search.
        score: The teacher's metric on dev.
        constant: That of a model which always gives the same answer.
    """
    if score > max(0.0, constant):
        return None
    if settings.teacher.train is not None:
        fix = "train it longer or with other settings (teacher.train.epochs, steps, lr)"
    else:
        fix = "check that its classes are in the order of the task's (task.labels)"
    return (
        f"the teacher's {settings.task.metric} on dev, {score:.4f}, is not above that of always "
        f"giving the same answer, {max(0.0, constant):.4f}, so students can't learn the task from "
        f"it; {fix}, or set teacher.allow_chance_level to search all the same"
    )


def ensure_targets(session: Session, worker: PreparationWorker, model: str) -> None:
    """Stores the teacher's outputs for the training data once, for all trials."""
    from lkd_tune.data.tasks.registry import kind_of  # loads torch
    from lkd_tune.tuning.preparation.jobs import prepare_targets

    settings, run, view = session.settings, session.run, session.view
    if run.read_manifest().get("targets") is not None or settings.targets.source == "live":
        return
    if kind_of(settings.task).has_dynamic_inputs:
        view.note("the teacher runs in every trial, because each step draws new inputs")
        return
    view.phase("storing the teacher's targets")
    progress = run.path / ".targets"
    targets = worker.run(
        "targets",
        prepare_targets,
        model,
        settings.teacher.inference.model_dump_json(),
        settings.task.model_dump_json(),
        settings.targets.model_dump_json(),
        session.cache,
        session.cwd,
        str(progress),
        _compared_vectors(session.space),
        poll=lambda: view.targets_stored(progress),
    )
    progress.unlink(missing_ok=True)
    if targets is None:
        return
    if not targets:
        view.note(
            f"stored targets would exceed targets.max_gb {settings.targets.max_gb:g}; "
            "the teacher runs in every trial"
        )
    if live := targets.pop("live", []):
        names = ", ".join(part.replace("_", " ") for part in live)
        view.note(
            f"with stored {names}, targets would exceed targets.max_gb "
            f"{settings.targets.max_gb:g}; the teacher runs in trials that compare them"
        )
    update_manifest(run, targets=targets)


def _compared_vectors(space: SearchSpace) -> list[str]:
    """Returns the parts that are stored as vectors and that any trial of a search may compare."""
    from lkd_tune.distillation.checks import tried_recipes
    from lkd_tune.distillation.targets.vectors import VECTOR_PARTS

    needs = {name: term.needs for name, term in LossSettings().terms()}
    asking = [name for name, parts in needs.items() if not parts.isdisjoint(VECTOR_PARTS)]
    compared = {part for name in space.possible_terms(*asking) for part in needs[name]}
    for name in tried_recipes(space):
        compared |= LossSettings.model_validate({"recipe": name}).needs
    return [part for part in VECTOR_PARTS if part in compared]


def ensure_fine_tuning(session: Session, worker: PreparationWorker, model: str) -> None:
    """Checks and tokenises the data of `evaluate_on`, if it is set."""
    from lkd_tune.tuning.preparation.jobs import prepare_fine_tuning

    settings, run = session.settings, session.run
    if settings.evaluate_on is None or run.read_manifest().get("evaluate_on") is not None:
        return
    task = settings.evaluate_on.task
    session.view.phase(f"reading {task.name}, the task that students are fine-tuned and scored on")
    examples = worker.run(
        "evaluate_on",
        prepare_fine_tuning,
        model,
        task.model_dump_json(),
        session.cache,
        session.cwd,
    )
    if examples is not None:
        found = {"task": task.name, "metric": task.metric, "examples": examples}
        update_manifest(run, evaluate_on=found)


def ensure_latencies(session: Session, worker: PreparationWorker, model: str) -> None:
    """Times teacher and students while no trial runs, as trials would slow them down at random.

    Trials time the other students: on other devices, with a trimmed vocabulary, or if there are
    too many.
    """
    from lkd_tune.tuning.preparation.jobs import time_students

    settings, run = session.settings, session.run
    if "latency_ms" in run.read_manifest()["teacher"] or any(run.latencies.glob("*.json")):
        return
    students = sorted(
        {
            shape.student.model_dump_json()
            for shape in session.space.shapes()
            if shape.student.vocab == "teacher"
        }
    )
    bounded = (*settings.objectives, *settings.limits.by_name)
    latency_counts = any(OBJECTIVES[name].measured == "timing" for name in bounded)
    most = _MAX_TIMED_IF_LATENCY_COUNTS if latency_counts else _MAX_TIMED
    if len(students) > most:
        students = []
    session.view.phase("timing the teacher and students")
    found = worker.run(
        "latencies",
        time_students,
        max(1, int(settings.resources.cpus)),
        model,
        settings.teacher.inference.model_dump_json(),
        students,
        settings.train.model_dump_json(),
        settings.task.model_dump_json(),
        session.cwd,
    )
    if found is None:
        return
    for name, text in found["files"].items():
        write_once(run.latencies / name, text)
    teacher = {**run.read_manifest()["teacher"], **(found["teacher"] or {})}
    update_manifest(run, teacher=teacher)
    if found["warning"] is not None:
        session.view.note(f"warning: {found['warning']}")
