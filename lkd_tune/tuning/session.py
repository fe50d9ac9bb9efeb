"""A session of a search: one driver process, from its start to its end."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lkd_tune.cluster.nodes import NodeRequirements, SearchNodes, installed_versions
from lkd_tune.cluster.ray import (
    Capacity,
    dashboard_address,
    describe_cluster,
    withhold_credentials,
)
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.files.cache import cache_dir
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import StorageError, retry_until_available
from lkd_tune.tuning.best_students import keep_best

if TYPE_CHECKING:
    from lkd_tune.tuning.mirror.run_mirror import RunMirror
    from lkd_tune.tuning.progress.view import View
    from lkd_tune.tuning.trackers.callback import Trackers


class Session:
    """What all phases of a search share, and how they run trials.

    Args:
        space: The space to search.
        run: The run folder, which has a manifest.
        capacity: How many trials the cluster can run at a time. If its nodes come and go, more
            trials are drawn than run, so that they start as soon as there is a node.
        view: What the user sees.

    Attributes:
        cache: Folder of trained teachers, tokenised data and stored targets.
        cwd: What paths in the space are relative to.
        common: The part of a trial's config that is the same for all trials.
        is_multi_node: Whether the cluster has, or may get, more than one node.
        nodes: What nodes need, and the nodes that do not have it.
        stop: Whether to stop now.
        view: What the user sees.
    """

    def __init__(self, space: SearchSpace, run: RunFolder, capacity: Capacity, view: View):
        from lkd_tune.tuning.stop import StopRequest

        self.space, self.run = space, run
        settings = space.settings
        self._concurrency = settings.search.concurrency or capacity.trials
        self._autoscales, self.is_multi_node = capacity.autoscales, capacity.trials is None
        manifest = run.read_manifest()
        self.stop = StopRequest(
            settings.search.time_budget,
            manifest["seconds"],
            folder=run.path,
            min_free_gb=settings.search.min_free_gb,
        )
        self.view = view
        view.earlier(run.read_trials())
        if capacity.awaited is not None:
            self.view.note(f"no node can run a trial yet; waiting for {capacity.awaited}")
        self.cwd, self.cache = os.getcwd(), str(cache_dir())
        requirements = NodeRequirements(
            None if run.remote_uri else str(run.path), installed_versions()
        )
        self.nodes = SearchNodes(requirements, settings.resources, self.view.note)
        # Written before any trial starts: workers of an earlier session stop when they see it.
        session = uuid.uuid4().hex
        update_manifest(run, session=session, cluster=describe_cluster(), finished=None)
        self.common = {
            "run": str(run.path),
            "remote_uri": run.remote_uri,
            "session": session,
            "cache": self.cache,
            "cwd": self.cwd,
            "limits": settings.limits.by_name,
            "versions": requirements.versions,
        }
        self._trackers: Trackers | None = None
        self._mirror: RunMirror | None = None
        if run.remote_uri is not None:
            from lkd_tune.tuning.mirror.run_mirror import RunMirror

            self._mirror = RunMirror(run, self.view.note, self.stop.interrupt)

    @property
    def settings(self) -> SpaceSettings:
        """The settings that do not vary between trials."""
        return self.space.settings

    @property
    def num_kept(self) -> int:
        """How many students are kept beside those that were confirmed."""
        confirm = self.settings.confirm
        return max(self.settings.keep.top, confirm.top if confirm else 0)

    def mirroring(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context that copies the run to its object store, if it has one."""
        return self._mirror or contextlib.nullcontext()

    @contextlib.contextmanager
    def tracking(self) -> Iterator[None]:
        """Logs the search to its trackers, and keeps the address of Ray's dashboard."""
        dashboard = dashboard_address()
        update_manifest(self.run, dashboard=dashboard)
        if dashboard is not None:
            self.view.note(f"Ray's dashboard: {dashboard}")
        try:
            if self.settings.trackers.chosen:
                from lkd_tune.tuning.trackers.callback import Trackers

                with Trackers(self.run, self.space, self.view.note) as self._trackers:
                    yield
            else:
                yield
        finally:
            self._trackers = None
            update_manifest(self.run, dashboard=None)

    def fetch_trial_results(self, trial: str, result: dict[str, Any] | None) -> bool:
        """Fetches what a trial wrote on a node that does not share the run's folder.

        If the run's object store is unreachable, it waits up to an hour and then ends the search.

        Args:
            trial: The trial's name.
            result: Its last result; None if its workers were lost.

        Returns:
            Whether the trial's folder is complete here.
        """
        mirror = self._mirror
        if mirror is None:
            return True

        def fetch() -> None:
            if result is None:
                mirror.fetch_trial_if_ahead(trial)
            elif result.get("is_remote"):
                mirror.fetch_trial(trial, checkpoint=result["state"] == "paused")

        try:
            retry_until_available(fetch, give_up=lambda: bool(self.stop))
        except StorageError as error:
            self.view.note(f"trial {trial} continues in a later session: {error}")
            if not self.stop:
                self.stop.interrupt()
            return False
        return True

    def student_location(self, name: str) -> str:
        """Returns a path or address where every node finds a kept student."""
        if self._mirror is None:
            return str(self.run.student(name))
        retry_until_available(self._mirror.flush, give_up=lambda: bool(self.stop))
        return f"{self.run.remote_uri}/students/{name}"

    def keep_best(self, ended: str | None = None) -> list[str]:
        """Keeps the best students; returns their names, best first. See `best_students.py`."""
        protected = {entry["trial"] for entry in self.run.read_confirmation()}
        if self.settings.confirm is not None:
            # It will be confirmed; its own seed's score does not decide on it.
            protected |= {self.run.read_manifest().get("baseline")} - {None}
        return keep_best(
            self.run, self.num_kept, self.settings.objectives, protected=protected, ended=ended
        )

    def run_trials(self, searcher: Any, scheduler: Any, *, trainable: Any = None) -> None:
        """Runs trials until the searcher has no more or the search has to stop.

        Args:
            searcher: Tune's searcher, which gives the trials.
            scheduler: Tune's scheduler; None: no trial stops early.
            trainable: The class that runs a trial; default: a distillation.

        Raises:
            SpecError: If no node of the cluster can take part.
        """
        from ray import tune

        from lkd_tune.cluster.autoscaling import AutoscalingLimiter
        from lkd_tune.tuning.execution.callback import SearchCallback
        from lkd_tune.tuning.execution.ray_patches import NoReport, lost_workers_survived
        from lkd_tune.tuning.execution.retries import Retries
        from lkd_tune.tuning.execution.trainable import DistillationTrainable
        from lkd_tune.tuning.stop import StopAllTrials

        withhold_credentials()
        stop_all = StopAllTrials(self.stop)
        retries = Retries(self.run, self.settings.search.max_failures)
        callback = SearchCallback(
            self.run,
            self.view,
            self.stop,
            stop_all.actors,
            retries,
            self.nodes,
            keep=self.keep_best,
        )
        if self._autoscales and self._concurrency is None:
            searcher = AutoscalingLimiter(searcher, stop_all.actors)
        # `tune.run`, because a `Tuner` pickles all of this into the run folder to resume from it,
        # which needs Tune's complete state. We resume from the study and the trials' folders.
        with lost_workers_survived():
            tune.run(
                trainable or DistillationTrainable,
                name="ray",
                storage_path=str(self.run.path),
                search_alg=searcher,
                scheduler=scheduler,
                stop=stop_all,
                callbacks=[callback, self._trackers] if self._trackers else [callback],
                num_samples=-1,
                max_concurrent_trials=self._concurrency,
                max_failures=retries.for_tune,
                reuse_actors=True,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                raise_on_failed_trial=False,
                progress_reporter=NoReport(),
                verbose=0,
            )
        if self.nodes.problem is not None:
            raise SpecError(Problem("", "", self.nodes.problem))


def _name(trial: Any) -> str:
    return trial.config["name"]
