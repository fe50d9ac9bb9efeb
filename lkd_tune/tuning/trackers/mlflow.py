"""MLflow: an experiment with a run for each trial."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lkd_tune.config.settings.trackers import MlflowSettings
from lkd_tune.tuning.trackers.base import TrackedTrial

# Which trial of which search a run is: another search may have the same name.
_TAG = "lkd_tune.trial"
_ALWAYS = "train_s"  # a metric that each point has
_MOST_METRICS, _MOST_TEXT = 500, 500  # the server takes 1000 in a request, 5000 characters in a tag
# Attempts and seconds of a request; a feed tries again by itself. And nothing is told to others.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Mlflow:
    """Runs of an experiment; a run of an earlier session is found by a tag and continued.

    Args:
        settings: Server and experiment.
        run: The run folder; its name is the default name of the experiment.
        search_id: Id of the search; its trials are tagged with it.
    """

    name = "mlflow"

    def __init__(self, settings: MlflowSettings, run: Path, search_id: str):
        self._uri = settings.uri
        self._experiment_name = settings.experiment or run.name
        self._search_id = search_id
        self._client: Any = None
        self._experiment = ""
        self._runs: dict[str, str] = {}  # ids of those that go on, by key
        self._steps: dict[str, int] = {}

    @staticmethod
    def problem() -> None:
        """Returns None: whether the server answers is seen when trials are logged."""

    def open(self) -> str:
        """Connects; makes the experiment if it is not there."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic"):  # they tell how a database is made
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it has set that itself
        client = MlflowClient(tracking_uri=self._uri)
        known = client.get_experiment_by_name(self._experiment_name)
        self._experiment = (
            known.experiment_id if known else client.create_experiment(self._experiment_name)
        )
        self._client = client
        return f"experiment {self._experiment_name} at {_without_user(client.tracking_uri)}"

    def update(self, trial: TrackedTrial) -> None:
        """Logs what is new, in one request for most trials."""
        if trial.key not in self._runs:
            self._begin(trial)
        run = self._runs[trial.key]
        points = {
            step: values for step, values in trial.points.items() if step > self._steps[trial.key]
        }
        self._log(run, points)
        self._steps[trial.key] = max(trial.last_step, self._steps[trial.key])
        if trial.state == "running":
            return
        known = trial.points.get(trial.last_step, {})
        results = {name: value for name, value in trial.results.items() if name not in known}
        self._log(run, {trial.last_step: results})
        self._client.set_tag(run, "state", trial.state)
        if trial.error:
            self._client.set_tag(run, "error", trial.error[:_MOST_TEXT])
        self._client.set_terminated(run, "FAILED" if trial.state == "failed" else "FINISHED")
        del self._runs[trial.key]

    def close(self) -> None:
        """Marks those that were cut off as killed."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")
        self._runs.clear()

    def _begin(self, trial: TrackedTrial) -> None:
        from mlflow.entities import Param

        tag = f"{self._search_id}/{trial.key}"
        found = self._client.search_runs([self._experiment], f"tags.`{_TAG}` = '{tag}'")
        if found:
            run = found[0].info.run_id
            points = self._client.get_metric_history(run, _ALWAYS)
            self._steps[trial.key] = max((point.step for point in points), default=-1)
            self._client.update_run(run, status="RUNNING")
        else:
            tags = {_TAG: tag, "role": trial.role, "state": "running"}
            run = self._client.create_run(
                self._experiment, run_name=trial.name, tags=tags
            ).info.run_id
            self._steps[trial.key] = -1
        if not (found and found[0].data.params):  # they can't be changed
            params = {name: value for name, value in trial.params.items() if value is not None}
            self._client.log_batch(
                run, params=[Param(name, str(value)[:_MOST_TEXT]) for name, value in params.items()]
            )
        self._runs[trial.key] = run

    def _log(self, run: str, points: Mapping[int, Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics: Iterator[Any] = (
            Metric(name, value, now, step)
            for step, values in points.items()
            for name, value in values.items()
        )
        while batch := list(islice(metrics, _MOST_METRICS)):
            self._client.log_batch(run, metrics=batch)


def _without_user(uri: str) -> str:
    """Returns an address without the name and password that may stand in it."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
