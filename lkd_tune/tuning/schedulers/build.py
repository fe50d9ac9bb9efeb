"""Which trials are stopped early."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ray.tune.schedulers import MedianStoppingRule

from lkd_tune.config.settings.blocks import SpaceSettings
from lkd_tune.config.starts import PUBLISHED
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import TrialRecord
from lkd_tune.tuning.schedulers.asha import Rungs


def build_scheduler(settings: SpaceSettings, records: Iterable[TrialRecord]) -> Any:
    """Returns what `search.scheduler` names, with what it knows of the trials so far."""
    search = settings.search
    match search.scheduler:
        case "none":
            return None
        case "asha":
            return Rungs(search.reduction_factor, records, settings.objectives)
        case "hyperband":
            brackets = settings.train.evaluations
            return Rungs(search.reduction_factor, records, settings.objectives, brackets=brackets)
        case "median":
            return Median(records)
    raise AssertionError(search.scheduler)


class Median(MedianStoppingRule):
    """Ray's median stopping rule, at the same share of each trial's steps.

    A trial is stopped if its best score so far is below the median of what the others had scored
    on average by the same share of their steps (Golovin et al., "Google Vizier", KDD 2017), once
    there are three of them. Ray's would otherwise pause trials while there are fewer, and take a
    measurement that a trial reports again, as after the loss of its worker, for another one.

    Args:
        records: The trials of a search that is resumed. The last score of an unfinished one is
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
        """Called by Tune with each trial; one of an earlier session has its scores already."""
        super().on_trial_add(tune_controller, trial)
        if known := self._results.pop(trial.config["name"], None):
            self._results[trial] = known

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune with each measurement that is not a trial's last."""
        told = _at_rung(Measurement.model_validate_json(result["measurement"]))
        known = self._results.get(trial, [])
        if any(each["rung"] == told["rung"] for each in known):
            return self.CONTINUE  # it was judged then
        decision = super().on_trial_result(tune_controller, trial, told)
        if trial.config["origin"] == PUBLISHED:
            # It is what the others are compared with. Ray's rule may not hear of one it stopped.
            self._stopped_trials.discard(trial)
            return self.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Called by Tune when a trial has ended; a failed one may have no score."""
        if "measurement" in result:
            told = _at_rung(Measurement.model_validate_json(result["measurement"]))
            super().on_trial_complete(tune_controller, trial, told)


def _at_rung(measurement: Measurement) -> dict[str, float]:
    """Returns a score and its rung: 0 at the end, -1 at a half of the steps, -2 at a quarter."""
    return {"rung": -measurement.halvings, "score": measurement.score}
