"""The Tune callback that passes trials to the trackers.

Ray has callbacks for TensorBoard, MLflow and Weights & Biases. They are not used, for these reasons
(Ray 2.60):

- They identify a trial by Tune's object or id. A trial that is resumed after a crash has a new id,
  so it would be logged twice. So would its parameters, which MLflow does not allow to change.
- Their step is `training_iteration`, which starts again at 1 when a trial restarts. The callback
  for Weights & Biases has no option for another step.
- They write to Tune's folder of a trial, which a resumed search removes. They log the trial's
  config, which is one string here.
- They are called in Tune's loop. While a server does not answer, no trial starts or stops, and an
  exception ends the search. The callback for MLflow sends one request per number.
- The callback for Weights & Biases starts two processes for each trial. It puts WANDB_API_KEY into
  their runtime environment, which Ray writes into its logs.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ray.tune.logger import LoggerCallback

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.space import SearchSpace
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.trackers.base import TrackedTrial, tracked
from lkd_tune.tuning.trackers.build import build_trackers
from lkd_tune.tuning.trackers.feed import Feed


class Trackers(LoggerCallback):
    """Logs a search's trials to its trackers; a context manager.

    What is logged is read from the trials' folders. So a session also logs what an earlier session
    could not log, or did not because it had no trackers. trackers.json in the run's folder lists
    the trials that each tracker has completely.

    Args:
        run: The run; it must have a manifest.
        space: The search space; its settings name the trackers.
        report: Called with messages for the user.
    """

    def __init__(self, run: RunFolder, space: SearchSpace, report: Callable[[str], None]):
        self._run, self._space, self._report = run, space, report
        self._lock = threading.Lock()
        self._logged: dict[str, list[str]] = _read(run)
        # Needed for trials on nodes that do not see the run's folder.
        self._seen: dict[str, list[Measurement]] = defaultdict(list)
        self._feeds = {
            tracker.name: Feed(
                tracker,
                functools.partial(self._read_unlogged, tracker.name),
                report,
                functools.partial(self._mark_complete, tracker.name),
            )
            for tracker in build_trackers(run, space)
        }

    def __enter__(self) -> Trackers:
        names = sorted(spec.parent.name for spec in self._run.path.glob("trials/*/spec.json"))
        for feed in self._feeds.values():
            for name in names:
                feed.put(name)
            feed.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name, feed in self._feeds.items():
            if missing := feed.end():
                trials = f"{missing} trial{'s are' if missing > 1 else ' is'}"
                resume = f"`{self._run.resume_command}`"
                self._report(
                    f"{name}: {trials} not logged completely; to log the rest, run {resume}"
                )

    def log_trial_start(self, trial: Any) -> None:
        """Called when a trial's actor has started."""
        self._put(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Called with each result of a trial."""
        if "measurement" in result:
            measurement = Measurement.model_validate_json(result["measurement"])
            with self._lock:
                self._seen[trial.config["name"]].append(measurement)
        self._put(trial)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Called when a trial has ended; its folder holds the outcome."""
        self._put(trial)

    def _put(self, trial: Any) -> None:
        for feed in self._feeds.values():
            feed.put(trial.config["name"])

    def _read_unlogged(self, tracker: str, name: str) -> TrackedTrial | None:
        """Returns a trial; None if the tracker has it completely, or if it was removed."""
        if not (self._run.trial(name) / "spec.json").exists():
            return None
        record = self._run.read_trial(name)
        with self._lock:  # read after the folder, so that no earlier step is missing
            seen = [*self._seen.get(name, ())]
        trial = tracked(record, self._space, seen)
        with self._lock:
            return None if trial.key in self._logged.get(tracker, ()) else trial

    def _mark_complete(self, tracker: str, trial: TrackedTrial) -> None:
        with self._lock:
            self._seen.pop(trial.name, None)
            self._logged.setdefault(tracker, []).append(trial.key)
            write_atomically(self._run.path / "trackers.json", json.dumps(self._logged))


def _read(run: RunFolder) -> dict[str, list[str]]:
    path = run.path / "trackers.json"
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else {}
    except json.JSONDecodeError as error:
        raise SpecError(Problem(str(path), "", f"can't be read: {error}")) from None
