"""The median stopping rule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ray.tune.schedulers import MedianStoppingRule

from lkd_tune.records.measurement import Measurement
from lkd_tune.records.trial_record import TrialRecord


class MedianStopping(MedianStoppingRule):
    """Ray's median stopping rule, at the same share of each trial's steps.

    A trial stops if its best score so far is below the median of the other trials' mean scores up
    to the same share of their steps (Golovin et al., "Google Vizier", KDD 2017), once there are
    three of them. Unlike Ray's rule it does not pause trials while there are fewer, and it ignores
    a measurement that a trial reports again, for example after it lost its worker.

    Args:
        records: The trials of a search that is resumed. The last score of an unfinished trial is
            left out: the trial reports it again and is judged then.
    """

    def __init__(self, records: Iterable[TrialRecord] = ()):
        super().__init__(
            time_attr="rung",
            metric="score",
            mode="max",
            grace_period=-math.inf,
            min_samples_required=3,
            min_time_slice=math.inf,
        )
        for record in records:
            judged = record.measurements if record.outcome else record.measurements[:-1]
            for measurement in judged:
                self._results[record.name].append(_at_rung(measurement))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Tune with each trial; restores the scores of an earlier session."""
        super().on_trial_add(tune_controller, trial)
        if known := self._results.pop(trial.config["name"], None):
            self._results[trial] = known

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune with each measurement that is not a trial's last."""
        reported = _at_rung(Measurement.model_validate_json(result["measurement"]))
        known = self._results.get(trial, [])
        if any(each["rung"] == reported["rung"] for each in known):
            return self.CONTINUE  # it was judged before
        return str(super().on_trial_result(tune_controller, trial, reported))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Called by Tune when a trial has ended; a failed one may have no score."""
        if "measurement" in result:
            reported = _at_rung(Measurement.model_validate_json(result["measurement"]))
            super().on_trial_complete(tune_controller, trial, reported)


def _at_rung(measurement: Measurement) -> dict[str, float]:
    """Returns a score and its rung: 0 at the end, -1 at half of the steps, -2 at a quarter."""
    return {"rung": -measurement.halvings, "score": measurement.score}
