"""Which trials are stopped early."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ray.tune.schedulers import MedianStoppingRule

from lkd_tune.search.rungs import Rungs
from lkd_tune.spec.run import TrialRecord
from lkd_tune.spec.settings import SpaceSettings
from lkd_tune.spec.start import PUBLISHED


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
    """Ray's median stopping rule, over shares of a trial's steps.

    A trial is stopped if its best score so far is below the median of what the others had scored
    on average by the same share of their steps (Golovin et al., "Google Vizier", KDD 2017), once
    there are three of them. Ray's would otherwise pause trials while there are fewer.

    Args:
        records: The trials of a search that is resumed; those that had ended are known again.
    """

    def __init__(self, records: Iterable[TrialRecord] = ()):
        super().__init__(
            time_attr="share",
            metric="score",
            mode="max",
            grace_period=0,
            min_samples_required=3,
            min_time_slice=math.inf,
        )
        for record in records:
            for measurement in record.measurements if record.outcome else ():
                known = {"share": measurement.share, "score": measurement.score}
                self._results[record.name].append(known)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune with each measurement that is not a trial's last."""
        decision = super().on_trial_result(tune_controller, trial, result)
        # The published recipe is what the others are compared with.
        return self.CONTINUE if trial.config["origin"] == PUBLISHED else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Called by Tune when a trial has ended; a failed one may have no score."""
        if "score" in result:
            super().on_trial_complete(tune_controller, trial, result)
