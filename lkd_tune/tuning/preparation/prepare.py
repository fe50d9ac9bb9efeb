"""What happens before the first trial: the teacher, data, the points to begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lkd_tune.config.errors import SpecError
from lkd_tune.config.objectives import OBJECTIVES
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.starts import Start, published_starts, start_from
from lkd_tune.files.atomic import write_once
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.progress_file import pace_in, read_pace
from lkd_tune.records.ranking import rank_run
from lkd_tune.records.run import RunFolder, read_measurements
from lkd_tune.storage.fetch import read_run
from lkd_tune.tuning.session import Session

if TYPE_CHECKING:
    from lkd_tune.tuning.preparation.worker import SideProcess

# So many of the best trials of each earlier run are tried again.
_BEST_OF_EACH = 3
# So many students are timed before the trials begin, or so many if that decides which is best.
_TIMED, _TIMED_IF_IT_DECIDES = 4, 32


def ensure_teacher(session: Session, aside: SideProcess) -> dict[str, Any] | None:
    """Returns the teacher's facts, from the manifest if it was prepared before.

    Returns None if interrupted.
    """
    from lkd_tune.distillation.teacher import teacher_depth
    from lkd_tune.tuning.preparation.jobs import prepare_teacher

    settings, run, view = session.settings, session.run, session.view
    facts = run.read_manifest().get("teacher")
    if facts is None:
        trained = settings.teacher.train is not None
        view.phase("training the teacher" if trained else "scoring the teacher")
        progress = run.path / "teacher"
        pace_in(progress).unlink(missing_ok=True)  # of a session that was cut off
        # On one machine the cache serves all; a cluster may have other nodes, or get them,
        # and only the run folder surely serves those.
        copy = str(progress / "model") if session.several else None
        if run.home is not None:  # it has to be there when this machine is not
            copy = f"{run.home}/teacher/model"
        facts = aside.run(
            "teacher",
            prepare_teacher,
            settings.teacher.model_dump_json(),
            settings.task.model_dump_json(),
            session.cache,
            session.cwd,
            str(progress),
            copy,
            poll=lambda: view.teacher_trains(
                read_measurements(progress), read_pace(pace_in(progress))
            ),
        )
        if facts is None:
            return None
        node = facts.pop("node")
        facts = {"layers": teacher_depth(settings.teacher), **facts}
        update_manifest(run, teacher=facts, hardware=node)
    score = facts["dev"][settings.task.metric]
    view.teacher_scored(score)
    if (doubt := doubt_of_teacher(settings, score)) is not None:
        view.note(doubt)
    return facts


def doubt_of_teacher(settings: SpaceSettings, score: float) -> str | None:
    """Returns what to tell of a teacher from which nothing is to be learnt, None if there is."""
    if score > 0:
        return None
    if settings.teacher.train is not None:
        how = "train it longer or otherwise (teacher.train.epochs, steps, lr)"
    else:
        how = "are its classes in the order of the task's (task.labels)?"
    return f"warning: the teacher knows nothing of the task, nor will students learn it; {how}"


def ensure_targets(session: Session, aside: SideProcess, model: str) -> None:
    """Has the teacher run over the data once, for all trials."""
    from lkd_tune.data.tasks.registry import kind_of  # loads torch
    from lkd_tune.tuning.preparation.jobs import prepare_targets

    settings, run, view = session.settings, session.run, session.view
    if run.read_manifest().get("targets") is not None or settings.targets.source == "live":
        return
    if kind_of(settings.task).live:
        view.phase("the teacher runs in each trial: what it sees is drawn anew in each step")
        return
    view.phase("storing the teacher's targets")
    progress = run.path / ".targets"
    facts = aside.run(
        "targets",
        prepare_targets,
        model,
        settings.teacher.inference.model_dump_json(),
        settings.task.model_dump_json(),
        settings.targets.model_dump_json(),
        session.cache,
        session.cwd,
        str(progress),
        poll=lambda: view.targets_stored(progress),
    )
    progress.unlink(missing_ok=True)
    if facts is None:
        return
    if not facts:
        view.phase(
            f"stored targets would exceed targets.max_gb {settings.targets.max_gb:g}; "
            "the teacher runs in every trial"
        )
    update_manifest(run, targets=facts)


def ensure_fine_tuning(session: Session, aside: SideProcess, model: str) -> None:
    """Has the data of `evaluate_on` looked through once, where there is that."""
    from lkd_tune.tuning.preparation.jobs import prepare_fine_tuning

    settings, run = session.settings, session.run
    if settings.evaluate_on is None or run.read_manifest().get("evaluate_on") is not None:
        return
    task = settings.evaluate_on.task
    session.view.phase(f"reading {task.name}, on which students are fine-tuned to be scored")
    examples = aside.run(
        "evaluate_on",
        prepare_fine_tuning,
        model,
        task.model_dump_json(),
        session.cache,
        session.cwd,
    )
    if examples is not None:
        facts = {"task": task.name, "metric": task.metric, "examples": examples}
        update_manifest(run, evaluate_on=facts)


def ensure_latencies(session: Session, aside: SideProcess, model: str) -> None:
    """Has students timed while no trial runs: beside others each takes longer, by chance how much.

    Trials time what is left: on other devices, with a trimmed vocabulary, or where there are more.
    """
    from lkd_tune.tuning.preparation.jobs import time_students

    settings, run = session.settings, session.run
    if any(run.latencies.glob("*.json")):  # those of an earlier session
        return
    students = sorted(
        {
            shape.student.model_dump_json()
            for shape in session.space.shapes()
            if shape.student.vocab == "teacher"
        }
    )
    sought = (*settings.objectives, *settings.limits.by_name)
    decides = any(OBJECTIVES[name].measured == "timing" for name in sought)
    if not 0 < len(students) <= (_TIMED_IF_IT_DECIDES if decides else _TIMED):
        return
    session.view.phase("timing students")
    times = aside.run(
        "latencies",
        time_students,
        max(1, int(settings.resources.cpus)),
        model,
        students,
        settings.train.model_dump_json(),
        settings.task.model_dump_json(),
        session.cwd,
    )
    for name, text in (times or {}).items():
        write_once(run.latencies / name, text)


def find_starts(session: Session, teacher_layers: int) -> list[Start]:
    """Returns the points that a new search begins with, and tells them.

    Raises:
        SpecError: If a run named by `search.warm_start` is none.
    """
    space, settings = session.space, session.settings
    published = settings.search.published_start
    starts = published_starts(space, teacher_layers) if published else []
    for folder in settings.search.warm_start:
        starts += _best_of(read_run(folder), session, teacher_layers)
    starts = [start for start in starts if start.params]
    for start in starts:
        moved = ", ".join(_moved(start, name) for name in start.moved)
        session.view.phase(
            f"begins with {start.origin}" + (f"; outside of this space: {moved}" if moved else "")
        )
    return starts


def check_warm_start(session_settings: Any, source: Any) -> None:
    """Refuses earlier runs that are none, or that no trial of is complete.

    Raises:
        SpecError: With each of them.
    """
    problems = []
    for folder in session_settings.search.warm_start:
        try:
            run = read_run(folder)
            run.read_manifest()
        except SpecError as error:
            problems += [
                source.problem(("search", "warm_start"), f"{p.where} {p.message}")
                for p in error.problems
            ]
            continue
        if not rank_run(run).names:
            message = f"{folder} has no complete trial"
            problems.append(source.problem(("search", "warm_start"), message))
    if problems:
        raise SpecError(problems)


def _best_of(run: RunFolder, session: Session, teacher_layers: int) -> list[Start]:
    return [
        start_from(f"{run.where} {name}", run.read_trial(name).spec, session.space, teacher_layers)
        for name in rank_run(run).names[:_BEST_OF_EACH]
    ]


def _moved(start: Start, name: str) -> str:
    """Returns what a point had that the space does not, and what stands for it."""
    if name not in start.params:
        return f"{name} {start.moved[name]}"
    taken = start.params[name]
    taken = f"{taken:.3g}" if isinstance(taken, float) else taken
    return f"{name} {start.moved[name]} ({taken} instead)"
