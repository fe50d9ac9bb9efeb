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

# The tag that identifies the search and the trial of a run; names of searches are not unique.
_TRIAL_TAG = "lkd_tune.trial"
_STEP_METRIC = "train_s"  # every step has this metric
# The server accepts 1000 metrics in a request, and 5000 characters in a tag.
_MAX_METRICS, _MAX_TEXT_LENGTH = 500, 500
# Few retries and a short timeout, because the feed itself retries. Telemetry is off.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Mlflow:
    """Logs each trial as a run of an experiment; finds runs of earlier sessions by a tag.

    Args:
        settings: The server and the experiment.
        run: The run folder; its name is the default name of the experiment.
        search_id: Id of the search, a part of each trial's tag.
    """

    name = "mlflow"

    def __init__(self, settings: MlflowSettings, run: Path, search_id: str):
        self._uri = settings.uri
        self._experiment_name = settings.experiment or run.name
        self._search_id = search_id
        self._client: Any = None
        self._experiment = ""
        self._runs: dict[str, str] = {}  # ids of the runs that have not ended, by trial key
        self._steps: dict[str, int] = {}

    @staticmethod
    def problem() -> None:
        """Returns None; an unreachable server is reported when trials are logged."""

    def open(self) -> str:
        """Connects, and creates the experiment if it does not exist."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic"):  # they log the creation of the database
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # importing it has reset the level
        client = MlflowClient(tracking_uri=self._uri)
        known = client.get_experiment_by_name(self._experiment_name)
        self._experiment = (
            known.experiment_id if known else client.create_experiment(self._experiment_name)
        )
        self._client = client
        return f"experiment {self._experiment_name} at {_without_user(client.tracking_uri)}"

    def update(self, trial: TrackedTrial) -> None:
        """Logs new values, in one request for most trials."""
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
        logged = trial.points.get(trial.last_step, {})
        results = {name: value for name, value in trial.results.items() if name not in logged}
        self._log(run, {trial.last_step: results})
        self._client.set_tag(run, "state", trial.state)
        if trial.error:
            self._client.set_tag(run, "error", trial.error[:_MAX_TEXT_LENGTH])
        self._client.set_terminated(run, "FAILED" if trial.state == "failed" else "FINISHED")
        del self._runs[trial.key]

    def close(self) -> None:
        """Marks the runs that have not ended as killed."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")
        self._runs.clear()

    def _begin(self, trial: TrackedTrial) -> None:
        from mlflow.entities import Param

        tag = f"{self._search_id}/{trial.key}"
        found = self._client.search_runs([self._experiment], f"tags.`{_TRIAL_TAG}` = '{tag}'")
        if found:
            run = found[0].info.run_id
            points = self._client.get_metric_history(run, _STEP_METRIC)
            self._steps[trial.key] = max((point.step for point in points), default=-1)
            self._client.update_run(run, status="RUNNING")
        else:
            tags = {_TRIAL_TAG: tag, "role": trial.role, "state": "running"}
            run = self._client.create_run(
                self._experiment, run_name=trial.name, tags=tags
            ).info.run_id
            self._steps[trial.key] = -1
        if not (found and found[0].data.params):  # parameters of a run can't be changed
            params = {name: value for name, value in trial.params.items() if value is not None}
            self._client.log_batch(
                run,
                params=[
                    Param(name, str(value)[:_MAX_TEXT_LENGTH]) for name, value in params.items()
                ],
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
        while batch := list(islice(metrics, _MAX_METRICS)):
            self._client.log_batch(run, metrics=batch)


def _without_user(uri: str) -> str:
    """Returns an address without the user name and password that it may contain."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
