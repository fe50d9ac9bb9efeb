"""Running a search from start to winner, and resuming one that was interrupted."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from lkd_tune.cluster.nodes import check_cluster
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.files.atomic import write_atomically
from lkd_tune.files.tombstones import add_tombstone
from lkd_tune.records.manifest import (
    folder_of_paths,
    new_manifest,
    now,
    update_manifest,
    write_manifest,
)
from lkd_tune.records.ranking import rank_run
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.local_files import with_absolute_paths
from lkd_tune.tuning.guard import Guard, guarded
from lkd_tune.tuning.lock import locked
from lkd_tune.tuning.mirror.run_mirror import clear_folder, fetch_run, run_exists
from lkd_tune.tuning.progress.view import View
from lkd_tune.tuning.resume_rules import (
    apply_changes,
    check_overrides,
    check_workers,
    refuse_retired,
)
from lkd_tune.tuning.session import Session


@dataclass
class SearchResult:
    """How a search, or one session of it, ended.

    Attributes:
        run: The run folder.
        best: Name of the best trial whose student is kept, None if there is none.
        interrupted: Whether Ctrl-C or SIGTERM stopped it; it can be resumed.
        out_of_time: Whether the time budget ended the trials; it can be resumed with a larger
            budget. Other seeds, the comparison with the labels alone and test scores still ran.
        disk_full: A description of the disk, if a full disk stopped it; it can be resumed.
        failures: Error messages by the names of the trials that failed.
        trials: Number of trials that have ended, including failed ones.
    """

    run: RunFolder
    best: str | None
    interrupted: bool = False
    out_of_time: bool = False
    disk_full: str | None = None
    failures: dict[str, str] = field(default_factory=dict)
    trials: int = 0

    @property
    def all_failed(self) -> bool:
        """Whether there were trials and all of them failed."""
        return self.trials > 0 and len(self.failures) == self.trials


def run_search(
    space: SearchSpace, run: RunFolder, *, address: str | None = None, quiet: bool = False
) -> SearchResult:
    """Searches a space; everything is written into the run folder.

    Args:
        space: The space to search.
        run: A folder that holds no run yet.
        address: Ray cluster; default: that of RAY_ADDRESS, else this machine.
        quiet: Whether to print nothing.

    Raises:
        SpecError: If the space, the data, the teacher and the cluster do not fit together, before
            any trial starts.
        SearchEndedError: If Ray dies, or the search is interrupted before it has begun.
    """
    run = run.absolute()
    view = View.of_search(space.settings, quiet=quiet)
    with guarded(run) as guard, view:
        _refuse_used(run)
        view.phase("checking the space, the teacher and the data")
        space = with_absolute_paths(space)
        _check(space)
        view.phase("starting Ray")
        with locked(run), guard.connected(address) as started_here:
            _refuse_used(run)  # another driver may have used it meanwhile
            capacity = check_cluster(space, run, is_local_cluster=started_here)
            clear_folder(run)
            write_space(run, space)
            write_manifest(run, new_manifest(space.settings, os.getcwd()))
            return _run(Session(space, run, capacity, view), guard)


def resume_search(
    run: RunFolder,
    *,
    address: str | None = None,
    quiet: bool = False,
    overrides: Sequence[str] = (),
    changed: SearchSpace | None = None,
    allow_changed: bool = False,
) -> SearchResult:
    """Resumes a search that was interrupted or killed, or that gets more trials or time.

    Args:
        run: The run folder.
        address: As for `run_search`.
        quiet: Whether to print nothing.
        overrides: `search.trials=32`, `resources.workers=4`, …; written to the run's space.yaml.
        changed: The space file as it is now, overrides applied; default: the run's own.
        allow_changed: Whether to apply the differences that are allowed to change.

    Raises:
        SpecError: If the folder holds no run or one with settings that were removed, if something
            differs that must not, or as `run_search`.
        SearchEndedError: As `run_search`.
    """
    run = run.absolute()
    with guarded(run) as guard:
        if run.remote_uri is not None:
            with locked(run):
                fetch_run(run)
        manifest = run.read_manifest()
        check_overrides(overrides)
        refuse_retired(run)
        space = load_space(run.space, overrides)
        if changed is not None:
            space = apply_changes(run, changed, allowed=allow_changed)
        view = View.of_search(space.settings, quiet=quiet)
        with contextlib.chdir(folder_of_paths(run)), view:
            view.phase("checking the space, the teacher and the data")
            _check(space)
            view.phase("starting Ray")
            with locked(run), guard.connected(address) as started_here:
                capacity = check_cluster(space, run, is_local_cluster=started_here)
                message = check_workers(run, space)
                paused_s = manifest.get("paused_s", 0.0) + _seconds_since_last_write(run)
                update_manifest(run, paused_s=paused_s)
                if overrides or changed is not None:
                    write_space(run, space)
                session = Session(space, run, capacity, view)
                if message is not None:
                    view.note(message)
                return _run(session, guard)


def _seconds_since_last_write(run: RunFolder) -> float:
    """Returns how long nothing has been written into a run's trials: no search was running."""
    files = [run.manifest, *run.path.glob("trials/*/*")]
    return max(0.0, time.time() - max(file.stat().st_mtime for file in files))


def _run(session: Session, guard: Guard) -> SearchResult:
    """Runs the remaining part of a search."""
    from lkd_tune.tuning.confirm import compare_with_labels_alone, confirm_best, score_on_test

    run, stop = session.run, session.stop
    best = None
    with (
        stop.on_full_disk(),
        guard.stopping(stop),
        session.mirroring(),
        session.tracking(),
    ):
        session.view.log_begun()
        _clean_up(session)
        teacher = _prepare(session)
        if teacher is not None and not stop:
            _search(session, teacher)
        kept = session.keep_best()
        if kept and not stop:
            confirm_best(session, kept)
        if kept and not stop:
            compare_with_labels_alone(session)
        best = next(iter(rank_run(run).names), None)
        if best is not None and not stop:
            score_on_test(session, best)
        if not stop:
            update_manifest(run, finished=now(), best=best)
    return _result(session, best)


def _prepare(session: Session) -> dict[str, Any] | None:
    """Prepares what trials need; returns what is known of the teacher, None if interrupted."""
    from lkd_tune.tuning.preparation import prepare
    from lkd_tune.tuning.preparation.loss_scales import ensure_loss_scales
    from lkd_tune.tuning.preparation.worker import PreparationWorker

    with PreparationWorker(session) as worker:
        teacher = prepare.ensure_teacher(session, worker)
        for ensure in (
            prepare.ensure_targets,
            prepare.ensure_fine_tuning,
            prepare.ensure_latencies,
            ensure_loss_scales,
        ):
            if teacher is not None and not session.stop:
                ensure(session, worker, teacher["model"])
    return teacher


def _clean_up(session: Session) -> None:
    """Removes what a killed session left behind."""
    from lkd_tune.records.trial_folder import TrialFolder

    run = session.run
    shutil.rmtree(run.path / "ray", ignore_errors=True)
    for folder in (run.path / "trials").glob("*"):
        if not (folder / "spec.json").exists():  # it was killed while the folder was made
            shutil.rmtree(folder)
            add_tombstone(folder)
    _mend_outcomes(session)
    for record in run.read_trials():
        if record.outcome is not None:
            TrialFolder(run.trial(record.name)).remove_checkpoints()


def _mend_outcomes(session: Session) -> None:
    """Replaces outcomes that can't be read by what the study knows of them.

    Trials that are not in the study, such as other seeds, are trained again.

    Raises:
        SpecError: With the trials of which other files can't be read.
    """
    from lkd_tune.records.trial_folder import TrialFolder, read_measurements
    from lkd_tune.records.trial_record import outcome_of
    from lkd_tune.tuning.study.journal import ended_trials

    run, view = session.run, session.view
    if not run.unreadable_trials():
        return
    ended = ended_trials(run.study)
    for path in (run.path / "trials").glob("*"):
        folder = TrialFolder(path)
        try:
            folder.read_outcome()
        except ValueError:
            (path / "outcome.json").unlink()
            state, spec, done = ended.get(path.name), folder.read_spec(), read_measurements(path)
            if state is None or spec is None:
                view.note(f"trial {path.name} is trained again: its outcome.json is damaged")
                continue
            folder.write_outcome(
                outcome_of(state, spec.resources, done[-1].train_s if done else 0.0)
            )
            view.note(f"trial {path.name}: its outcome.json is damaged; the study says {state}")
    if lines := run.unreadable_trials():
        raise SpecError(Problem(run.where, "", line) for line in lines)


def _search(session: Session, teacher: dict[str, Any]) -> None:
    """Draws and runs trials until there are enough."""
    from lkd_tune.tuning.preparation.warm_start import find_starts
    from lkd_tune.tuning.schedulers.build import build_scheduler
    from lkd_tune.tuning.study.searcher import StudySearcher

    settings, run = session.settings, session.run
    session.keep_best()
    records = [record for record in run.read_trials() if record.is_drawn]
    starts = [] if records else find_starts(session, teacher["layers"])
    session.view.phase("searching")
    session.stop.start_clock()
    searcher = StudySearcher(
        session.space,
        run,
        teacher=teacher["model"],
        teacher_layers=teacher["layers"],
        common=session.common,
        fetch_trial_results=session.fetch_trial_results,
        starts=starts,
    )
    session.run_trials(searcher, build_scheduler(settings, records))
    session.stop.stop_clock()
    update_manifest(run, seconds=session.stop.seconds)


def _result(session: Session, best: str | None) -> SearchResult:
    ended = [record for record in session.run.read_trials() if record.outcome and record.is_drawn]
    return SearchResult(
        session.run,
        best,
        interrupted=session.stop.reason == "interrupted",
        out_of_time=session.stop.out_of_time,
        disk_full=session.stop.full_disk,
        failures={
            r.name: r.outcome.error or ""
            for r in ended
            if r.outcome and r.outcome.state == "failed"
        },
        trials=len(ended),
    )


def write_space(run: RunFolder, space: SearchSpace) -> None:
    """Writes the space with all overrides applied; `load_space` reads it back."""
    head = "# The space of this run, with its overrides.\n"
    text = yaml.dump(
        space.source.tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    write_atomically(run.space, head + text)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes strings such as '5e-5', which a space file reads as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _refuse_used(run: RunFolder) -> None:
    if run_exists(run):
        message = (
            f"holds a search already; resume it ({run.resume_command}) or choose another folder"
        )
        raise SpecError(Problem(run.where, "", message))


def _check(space: SearchSpace) -> None:
    from lkd_tune.distillation.checks import check_space  # loads torch
    from lkd_tune.tuning.preparation.warm_start import check_warm_start
    from lkd_tune.tuning.trackers.build import check_trackers

    check_space(space)
    check_trackers(space)
    check_warm_start(space.settings, space.source)
