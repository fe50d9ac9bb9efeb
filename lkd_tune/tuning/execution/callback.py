"""What the driver does as trials start, measure and end: show it, keep students, save the time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback

from lkd_tune.cluster.health import raise_if_ray_is_lost
from lkd_tune.cluster.nodes import SearchNodes
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.progress_file import read_progress
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import outcome_of
from lkd_tune.tuning.execution.oom import killed_by_ray
from lkd_tune.tuning.execution.retries import Retries, error_of
from lkd_tune.tuning.progress.events import MAX_ROWS
from lkd_tune.tuning.progress.view import View
from lkd_tune.tuning.stop import StopRequest

# Time that a killed driver may lose from the time budget's account.
_SAVE_TIME_EVERY_S = 10.0
_READ_PROGRESS_EVERY_S = 2.0


class SearchCallback(Callback):
    """Tune's callback of a search. The study receives each event first.

    Args:
        run: The run.
        view: Shows the search to the user.
        stop: Whether the search has to stop, and its clock.
        actors: The actors of running trials by the trial's name; kept up to date here.
        retries: Decides when a trial has failed too often.
        nodes: The nodes of the search.
        keep: Called with the name of each complete trial, to keep the best students.
    """

    def __init__(
        self,
        run: RunFolder,
        view: View,
        stop: StopRequest,
        actors: dict[str, Any],
        retries: Retries,
        nodes: SearchNodes,
        *,
        keep: Callable[[str], Any],
    ):
        self._run, self._view, self._stop = run, view, stop
        self._actors, self._retries, self._keep = actors, retries, keep
        self._nodes = nodes
        self._wall_s: dict[str, float] = {}
        self._time_saved = self._progress_read = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial has an actor."""
        name = trial.config["name"]
        self._actors[name] = trial.temporary_state.ray_actor
        self._retries.started(trial)
        spec = TrialSpec.model_validate_json(trial.config["spec"])
        self._view.trial_started(name, spec, origin=trial.config.get("origin"))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called with each result."""
        self._wall_s[trial.config["name"]] = result["wall_s"]
        if "full_disk" in result:
            self._stop.stop_for_full_disk(result["full_disk"])
        if "measurement" in result:
            measurement = Measurement.model_validate_json(result["measurement"])
            self._view.measured(trial.config["name"], measurement)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial has finished or the scheduler has stopped it."""
        name, result = trial.config["name"], trial.last_result
        self._actors.pop(name, None)
        _free_memory(trial)
        if result["state"] == "paused":
            self._view.trial_paused(name)
            return
        state = "stopped" if result["state"] == "running" else result["state"]
        self._view.trial_ended(name, state, result.get("score"), result["error"])
        if state == "complete":
            self._keep(name)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial's actor is lost, before Tune starts the trial again.

        For a trial that was lost too often, this writes an outcome. Its next actor finds it, and
        reports that the trial has ended.
        """
        name = trial.config["name"]
        self._actors.pop(name, None)
        raise_if_ray_is_lost()  # nothing of which is the trial's failure
        folder, error = TrialFolder(self._run.trial(name)), error_of(trial)
        full_disk = folder.pop_full_disk()
        if full_disk is not None:
            self._stop.stop_for_full_disk(full_disk)
        elif "StorageError" in error:
            # It has retried for an hour, and the other trials would; none of them shall fail.
            self._view.note(f"trial {name}: {error.strip().splitlines()[-1]}; the search ends")
            self._stop.interrupt()
        elif self._nodes.exclude_unfit(error):
            trial.max_failures += 1
            if self._nodes.problem is not None:
                self._stop.interrupt()
        elif self._retries.are_used_up(trial):
            reason = f"its worker was lost {self._retries.for_tune} time(s)"
            if killed_by_ray(error):
                reason += ", the last time because its node ran out of memory"
            resources = TrialSpec.model_validate_json(trial.config["spec"]).resources
            outcome = outcome_of("failed", resources, self._wall_s.get(name, 0.0), reason)
            if folder.read_outcome() is None:
                folder.write_outcome(outcome, error_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when Tune can't start a trial again, not even to report its end."""
        name = trial.config["name"]
        self._actors.pop(name, None)
        folder = TrialFolder(self._run.trial(name))
        outcome = folder.read_outcome()
        if not (folder.path / "error.txt").exists():
            write_atomically(folder.path / "error.txt", error_of(trial))
        if outcome is not None:
            self._view.trial_ended(name, outcome.state, None, outcome.error)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called several times a second."""
        self._view.clock(self._stop.seconds_left)
        if time.monotonic() - self._progress_read > _READ_PROGRESS_EVERY_S:
            self._progress_read = time.monotonic()
            for name in itertools.islice(self._actors, MAX_ROWS):  # those that are shown
                progress = read_progress(TrialFolder(self._run.trial(name)).progress)
                if progress is not None:
                    self._view.stepped(name, progress)
        if time.monotonic() - self._time_saved > _SAVE_TIME_EVERY_S:
            self._time_saved = time.monotonic()
            update_manifest(self._run, seconds=self._stop.seconds)


def _free_memory(trial: Any) -> None:
    """Drops data of an ended trial that Tune keeps until the search ends but no code reads.

    These are two windows of averages for each of about 20 numbers, the last result (with the
    trial's config), a name made of the whole config, and the spec, which is in the trial's folder.
    """
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()
    trial.run_metadata.last_result = {"done": True}
    trial.experiment_tag = ""
    trial.evaluated_params.clear()
    trial.config.pop("spec", None)
