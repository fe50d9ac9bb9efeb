"""Asynchronous successive halving, with a rung at each evaluation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from lkd_tune.spec.measurement import Measurement
from lkd_tune.spec.run import TrialRecord


class Rungs(FIFOScheduler):
    """Stops a trial whose score is not among the best 1 / reduction_factor of its rung so far.

    Ray's own scheduler has rungs at fixed steps, reduction_factor apart. Here the rungs are where
    scores are: at 1/2, 1/4, … of a trial's own steps. So trials of different batch sizes or epochs
    are compared at the same point of their learning rate's schedule, and no evaluation is wasted
    between two rungs. The rule is that of Li et al., "A System for Massively Parallel
    Hyperparameter Tuning" (MLSys 2020): of n trials at a rung the best floor(n / factor), but at
    least one, go on; a trial is judged when it comes, by those that came before.

    Args:
        reduction_factor: One in so many goes on.
        records: The trials of a search that is resumed. The last score of an unfinished one is
            left out: the trial reports it again and is judged then.
    """

    def __init__(self, reduction_factor: float, records: Iterable[TrialRecord] = ()):
        super().__init__()
        self._factor = reduction_factor
        self._scores: dict[int, dict[str, float]] = defaultdict(dict)
        for record in records:
            judged = record.measurements if record.outcome else record.measurements[:-1]
            for measurement in judged:
                self.goes_on(record.name, measurement)

    def goes_on(self, name: str, measurement: Measurement) -> bool:
        """Notes a score and returns whether its trial goes on; asked again, it does."""
        rung = self._scores[round(math.log2(measurement.total_steps / measurement.step))]
        if name in rung or measurement.finished:
            return True
        rung[name] = measurement.score
        better = sum(score > measurement.score for score in rung.values())
        return better < max(1, int(len(rung) / self._factor))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune with each measurement that is not a trial's last."""
        measurement = Measurement.model_validate_json(result["measurement"])
        goes_on = self.goes_on(trial.config["name"], measurement)
        return self.CONTINUE if goes_on else self.STOP
