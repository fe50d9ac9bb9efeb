"""Tune's events, handed on to trackers.

Not Ray's own callbacks for TensorBoard, MLflow and Weights & Biases, though this is one of their
kind. What they lack here (Ray 2.60):

- They know a trial by Tune's object or id. A trial that goes on after a crash has another,
  and would be logged twice; so would its parameters, which MLflow refuses to change.
- Their clock is `training_iteration`, which begins anew when a trial does; that of Weights & Biases
  can't be told otherwise.
- They write where Tune has a trial's files, which a resumed search removes, and log its config,
  which here is a text.
- They are called in Tune's loop: while a server does not answer, no trial starts or is stopped,
  and what they raise ends the search. MLflow's asks the server once for each number.
- That of Weights & Biases starts two processes for each trial and puts WANDB_API_KEY into their
  runtime environment, which Ray writes into its logs.
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
    """Logs a search's trials as they start, measure and end; a context around all of them.

    A trial's folder is what is logged of it. So a session also logs what an earlier one could not,
    or did not, as there were no trackers then. trackers.json in the run says which trials are
    complete in which tracker.

    Args:
        run: Its manifest is there already.
        space: What is searched; its settings name the trackers.
        tell: Told what the user should know.
    """

    def __init__(self, run: RunFolder, space: SearchSpace, tell: Callable[[str], None]):
        self._run, self._space, self._tell = run, space, tell
        self._lock = threading.Lock()
        self._logged: dict[str, list[str]] = _read(run)
        # Of nodes that do not see this folder; of the others the folder has them too.
        self._seen: dict[str, list[Measurement]] = defaultdict(list)
        self._feeds = {
            tracker.name: Feed(
                tracker,
                functools.partial(self._trial, tracker.name),
                tell,
                functools.partial(self._note_end, tracker.name),
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
                what = f"{missing} trial{'s' if missing > 1 else ''}"
                resume = f"lkd-tune search --resume {self._run.where}"
                self._tell(f"{name} does not have all of {what}; {resume} sends it")

    def log_trial_start(self, trial: Any) -> None:
        """Called when a trial has an actor."""
        self._put(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Called with each result."""
        if "measurement" in result:
            measurement = Measurement.model_validate_json(result["measurement"])
            with self._lock:
                self._seen[trial.config["name"]].append(measurement)
        self._put(trial)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Called when a trial has ended; its folder says how."""
        self._put(trial)

    def _put(self, trial: Any) -> None:
        for feed in self._feeds.values():
            feed.put(trial.config["name"])

    def _trial(self, tracker: str, name: str) -> TrackedTrial | None:
        """Returns a trial, None if that tracker has all of it or the trial is gone."""
        if not (self._run.trial(name) / "spec.json").exists():
            return None
        record = self._run.read_trial(name)
        with self._lock:  # after the folder: so no step is missing before one that is there
            seen = [*self._seen.get(name, ())]
        trial = tracked(record, self._space, seen)
        with self._lock:
            return None if trial.key in self._logged.get(tracker, ()) else trial

    def _note_end(self, tracker: str, trial: TrackedTrial) -> None:
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
