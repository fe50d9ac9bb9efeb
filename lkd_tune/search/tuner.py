"""A search from its beginning to its winner, and going on with one that was cut off."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from filelock import FileLock, Timeout

from lkd_tune.search.cluster import check_nodes, check_room, connected, describe_cluster
from lkd_tune.search.manifest import new_manifest, now, update_manifest, write_manifest
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.run import (
    BASELINE,
    RunFolder,
    cache_dir,
    read_measurements,
    write_atomically,
)
from lkd_tune.spec.space import SearchSpace, load_space
from lkd_tune.spec.trial import TrialSpec

# What may change when a search goes on; all else would mix trials that can't be compared.
_CHANGEABLE = (
    "search.trials",
    "search.time_budget",
    "search.concurrency",
    "search.max_failures",
    "search.baseline",
)


@dataclass
class SearchResult:
    """How a search, or one session of it, ended.

    Attributes:
        run: Its folder.
        best: Name of the best trial whose student is kept, None if there is none.
        interrupted: Whether it was stopped by Ctrl-C or SIGTERM; it can be resumed.
        out_of_time: Whether its time budget was used up; it can be resumed with a larger one.
        failures: Reasons by the names of the trials that failed.
        trials: Trials that have ended, failed ones included.
    """

    run: RunFolder
    best: str | None
    interrupted: bool = False
    out_of_time: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    trials: int = 0

    @property
    def all_failed(self) -> bool:
        """Whether there were trials and every one of them failed."""
        return self.trials > 0 and len(self.failures) == self.trials


def run_search(
    space: SearchSpace, run: RunFolder, *, address: str | None = None, quiet: bool = False
) -> SearchResult:
    """Searches a space; everything is written into the run folder.

    Args:
        space: What to search.
        run: A folder that holds no run yet.
        address: Ray cluster; none: that of RAY_ADDRESS, else this machine.
        quiet: Shows nothing.

    Raises:
        SpecError: If the space, the data, the teacher and the cluster do not fit together.
            Nothing has been started then.
    """
    run = RunFolder(run.path.absolute())
    if run.manifest.exists():
        resume = f"lkd-tune search --resume {run.path}"
        message = f"holds a search already; go on with it ({resume}) or name another folder"
        raise SpecError(Problem(str(run.path), "", message))
    _check(space)
    with _locked(run), connected(address) as started_here:
        room = check_room(space.settings.resources, space.source)
        if not started_here:
            check_nodes(run.path)
        write_space(run, space)
        write_manifest(run, new_manifest(space.settings.search.seed, os.getcwd()))
        return _Session(space, run, room if started_here else None, quiet=quiet).go()


def resume_search(
    run: RunFolder,
    *,
    address: str | None = None,
    quiet: bool = False,
    overrides: Sequence[str] = (),
) -> SearchResult:
    """Goes on with a search that was interrupted, killed, or is to have more trials or time.

    Args:
        run: Its folder.
        address: As for `run_search`.
        quiet: Shows nothing.
        overrides: `search.trials=32`, `search.time_budget=60`, …; kept in the run's space.yaml.

    Raises:
        SpecError: If the folder holds no run, an override is not allowed, or as `run_search`.
    """
    run = RunFolder(run.path.absolute())
    manifest = run.read_manifest()
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key not in _CHANGEABLE:
            message = f"can't change in a run; {', '.join(_CHANGEABLE)} can"
            raise SpecError(Problem(f"--set {override}", "", message))
    space = load_space(run.space, overrides)
    # Paths in the space are relative to where the search began, if that is still there.
    cwd = manifest["cwd"] if os.path.isdir(manifest["cwd"]) else os.getcwd()
    with contextlib.chdir(cwd):
        _check(space)
        with _locked(run), connected(address) as started_here:
            room = check_room(space.settings.resources, space.source)
            if not started_here:
                check_nodes(run.path)
            if overrides:
                write_space(run, space)
            return _Session(space, run, room if started_here else None, quiet=quiet).go()


class _Session:
    """One process's part of a search.

    Args:
        space: What is searched.
        run: Where; its manifest is there already.
        room: Trials that fit into the cluster at a time, None if it may grow: Tune then draws one
            trial more than runs, to be placed as soon as there is room.
        quiet: Shows nothing.
    """

    def __init__(self, space: SearchSpace, run: RunFolder, room: int | None, *, quiet: bool):
        from lkd_tune.search.stop import StopRequest
        from lkd_tune.search.view import View

        self._space, self._run = space, run
        self._settings = settings = space.settings
        self._concurrency = settings.search.concurrency or room
        self._may_grow = room is None
        manifest = run.read_manifest()
        self._stop = StopRequest(settings.search.time_budget, manifest["seconds"])
        records = run.read_trials()
        self._view = View(settings.search.trials, settings.task.metric, records, quiet=quiet)
        self._cwd, self._cache = os.getcwd(), str(cache_dir())
        # Written before any trial starts: workers of an earlier session end when they see it.
        session = uuid.uuid4().hex
        update_manifest(run, session=session, cluster=describe_cluster(), finished=None)
        self._common = {
            "run": str(run.path),
            "session": session,
            "cache": self._cache,
            "cwd": self._cwd,
        }

    def go(self) -> SearchResult:
        """Does all that is left to do."""
        with self._stop.on_signals(), self._view:
            self._tidy()
            teacher = self._teacher()
            if teacher is not None and not self._stop:
                self._targets(teacher["model"])
            if teacher is not None and not self._stop:
                self._search(teacher)
            best = next(iter(self._keep()), None)
            if best is not None and self._stop.reason != "interrupted":
                self._finish(best)
            if self._stop.reason is None:
                update_manifest(self._run, finished=now())
        return self._result(best)

    def _tidy(self) -> None:
        """Removes what a killed session left behind."""
        from lkd_tune.search.trial_folder import TrialFolder

        shutil.rmtree(self._run.path / "ray", ignore_errors=True)
        for record in self._run.read_trials():
            if record.outcome is not None:
                TrialFolder(self._run.trial(record.name)).remove_checkpoints()

    def _teacher(self) -> dict[str, Any] | None:
        """Returns the teacher's facts, from the manifest if it was prepared before."""
        from lkd_tune.distill.teacher import teacher_depth
        from lkd_tune.search.tasks import prepare_teacher, run_task

        settings = self._settings
        facts = self._run.read_manifest().get("teacher")
        if facts is None:
            trained = settings.teacher.train is not None
            self._view.phase("training the teacher" if trained else "scoring the teacher")
            progress = self._run.path / "teacher"
            # On one machine the cache serves all; a cluster may have other nodes, or get them,
            # and only the run folder surely serves those.
            several = self._may_grow
            facts = run_task(
                prepare_teacher,
                settings.teacher.model_dump_json(),
                settings.task.model_dump_json(),
                self._cache,
                self._cwd,
                str(progress),
                str(progress / "model") if several else None,
                resources=settings.resources,
                stop=self._stop,
                poll=lambda: self._view.teacher_measured(read_measurements(progress)),
            )
            if facts is None:
                return None
            node = facts.pop("node")
            layers = teacher_depth(settings.teacher)
            facts = {"layers": layers, **facts}
            update_manifest(self._run, teacher=facts, hardware=node)
        self._view.teacher_scored(facts["dev"][settings.task.metric])
        return facts

    def _targets(self, model: str) -> None:
        """Has the teacher run over the data once, for all trials."""
        from lkd_tune.search.tasks import prepare_targets, run_task

        settings = self._settings
        if (
            self._run.read_manifest().get("targets") is not None
            or settings.targets.source == "live"
        ):
            return
        self._view.phase("storing the teacher's targets")
        progress = self._run.path / ".targets"
        facts = run_task(
            prepare_targets,
            model,
            settings.task.model_dump_json(),
            settings.targets.model_dump_json(),
            self._cache,
            self._cwd,
            str(progress),
            resources=settings.resources,
            stop=self._stop,
            poll=lambda: self._view.targets_stored(progress),
        )
        progress.unlink(missing_ok=True)
        if facts is None:
            return
        if not facts:
            self._view.phase(
                f"stored targets would exceed targets.max_gb {settings.targets.max_gb:g}; "
                "the teacher runs in every trial"
            )
        update_manifest(self._run, targets=facts)

    def _search(self, teacher: dict[str, Any]) -> None:
        from lkd_tune.search.rungs import Rungs
        from lkd_tune.search.study import StudySearcher

        settings = self._settings
        searcher = StudySearcher(
            self._space,
            self._run,
            teacher=teacher["model"],
            teacher_layers=teacher["layers"],
            common=self._common,
        )
        self._keep()
        scheduler = None
        if settings.search.scheduler == "asha":
            records = [r for r in self._run.read_trials() if r.name != BASELINE]
            scheduler = Rungs(settings.search.reduction_factor, records)
        self._view.phase("searching")
        self._stop.start_clock()
        self._fit(searcher, scheduler)
        update_manifest(self._run, seconds=self._stop.seconds)

    def _fit(self, searcher: Any, scheduler: Any) -> None:
        """Runs trials until the searcher has no more or the search is to stop."""
        from ray import tune

        from lkd_tune.search.follower import Follower
        from lkd_tune.search.stop import StopAll
        from lkd_tune.search.trainable import DistillationTrainable

        stop_all = StopAll(self._stop)
        follower = Follower(
            self._run, self._view, self._stop, stop_all.actors, keep=self._settings.keep.top
        )
        # `run`, not a `Tuner`: that one pickles all of this into the run folder for its own way of
        # resuming, which needs Tune's state to be whole. Ours needs the study and the trials.
        tune.run(
            DistillationTrainable,
            name="ray",
            storage_path=str(self._run.path),
            search_alg=searcher,
            scheduler=scheduler,
            stop=stop_all,
            callbacks=[follower],
            num_samples=-1,
            max_concurrent_trials=self._concurrency,
            max_failures=self._settings.search.max_failures,
            reuse_actors=True,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            trial_name_creator=_name,
            trial_dirname_creator=_name,
            raise_on_failed_trial=False,
            verbose=0,
        )

    def _keep(self) -> list[str]:
        from lkd_tune.search.keep import keep_best

        return keep_best(self._run, self._settings.keep.top)

    def _finish(self, best: str) -> None:
        """Compares the winner with plain training, and scores both on test."""
        from lkd_tune.distill.teacher import LABELS_ONLY

        winner = self._run.read_trial(best)
        if self._settings.search.baseline and not self._stop:
            self._baseline(winner.spec.model_copy(update={"losses": LABELS_ONLY}))
        if self._settings.task.test is not None:
            self._score_on_test(best)

    def _baseline(self, spec: TrialSpec) -> None:
        from lkd_tune.search.once import OneTrial
        from lkd_tune.search.trial_folder import TrialFolder

        folder = TrialFolder(self._run.trial(BASELINE))
        if (folder.path / "spec.json").exists():
            record = self._run.read_trial(BASELINE)
            if record.spec != spec:  # of an earlier winner
                shutil.rmtree(folder.path)
            elif record.outcome is not None:
                return
        folder.write_spec(spec)
        self._view.phase("training the winner's depth without distillation")
        self._fit(OneTrial(self._run, BASELINE, spec, self._common), None)

    def _score_on_test(self, best: str) -> None:
        from lkd_tune.search.keep import add_test_metrics
        from lkd_tune.search.tasks import run_task, score_model

        if (self._run.trial(best) / "test.json").exists():
            return
        self._view.phase("scoring the winner on test")
        scores = run_task(
            score_model,
            str(self._run.student(best)),
            self._settings.task.model_dump_json(),
            self._cache,
            self._cwd,
            ("test",),
            resources=self._settings.resources,
            stop=self._stop,
        )
        if scores is not None:
            add_test_metrics(self._run, best, scores["test"])

    def _result(self, best: str | None) -> SearchResult:
        ended = [r for r in self._run.read_trials() if r.outcome and r.name != BASELINE]
        return SearchResult(
            self._run,
            best,
            interrupted=self._stop.reason == "interrupted",
            out_of_time=self._stop.reason == "time",
            failures={
                r.name: r.outcome.error or ""
                for r in ended
                if r.outcome and r.outcome.state == "failed"
            },
            trials=len(ended),
        )


def write_space(run: RunFolder, space: SearchSpace) -> None:
    """Writes the space as it is run, overrides applied; `load_space` gives it back."""
    head = "# The space of this run, with the overrides it was given.\n"
    text = yaml.dump(
        space.source.tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    write_atomically(run.space, head + text)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes text such as '5e-5', which a space file reads as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _check(space: SearchSpace) -> None:
    from lkd_tune.distill.checks import check_space  # loads torch

    check_space(space)


@contextlib.contextmanager
def _locked(run: RunFolder) -> Iterator[None]:
    """Holds the run for this driver; a lock ends with its process, however that ends.

    Raises:
        SpecError: If another driver has it.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.path / ".driver.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        message = "is being searched by another process; end that first"
        raise SpecError(Problem(str(run.path), "", message)) from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _name(trial: Any) -> str:
    return trial.config["name"]
