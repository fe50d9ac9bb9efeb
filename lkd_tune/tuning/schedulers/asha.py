"""Asynchronous successive halving (ASHA) and Hyperband, with a rung at each evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.pareto import Costs, costs_of, nondominated_order
from lkd_tune.records.trial_record import TrialRecord


class SuccessiveHalving(FIFOScheduler):
    """Stops a trial whose score is not among the best 1 / reduction_factor of its rung so far.

    Ray's own scheduler has rungs at fixed steps, reduction_factor apart. Here the rungs are at the
    evaluations: at 1/2, 1/4, … of a trial's own steps. So trials of different batch sizes or epochs
    are compared at the same point of their learning rate schedule, and each evaluation is used.
    The rule is that of Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys
    2020): of n trials at a rung the best floor(n / factor), but at least one, continue. A trial is
    judged when it arrives, against those that arrived before. With several objectives the best are
    those first in `nondominated_order`.

    With several brackets it is the asynchronous Hyperband of the same paper. Bracket s skips the
    first s rungs, so that some slow starters run to their end. Trials are distributed to brackets
    in Hyperband's proportions, and each bracket has its own rungs.

    Args:
        reduction_factor: One trial in `reduction_factor` continues.
        records: The trials of a search that is resumed. The last score of an unfinished trial is
            left out: the trial reports it again and is judged then.
        objectives: The objectives of the search.
        brackets: 1 for successive halving; for Hyperband the number of evaluations.
    """

    def __init__(
        self,
        reduction_factor: float,
        records: Iterable[TrialRecord] = (),
        objectives: Sequence[str] = ("score",),
        *,
        brackets: int = 1,
    ):
        super().__init__()
        self._factor, self._objectives = reduction_factor, objectives
        self._brackets = brackets
        self._rungs: dict[tuple[int, int], dict[str, Costs]] = defaultdict(dict)
        for record in records:
            judged = record.measurements if record.outcome else record.measurements[:-1]
            for measurement in judged:
                self.continues(record.name, measurement, record.size)

    def continues(self, name: str, measurement: Measurement, size: ModelSize | None = None) -> bool:
        """Adds a score to its rung and returns whether the trial continues.

        A score that is reported again is not judged again: the trial continues.
        """
        bracket = bracket_of(int(name), self._brackets, self._factor) if self._brackets > 1 else 0
        halvings = measurement.halvings
        rung = self._rungs[bracket, halvings]
        skipped = bracket > 0 and halvings >= self._brackets - bracket
        if name in rung or measurement.finished or skipped:
            return True
        own = rung[name] = costs_of(self._objectives, measurement.score, size)
        if len(self._objectives) == 1:
            better = sum(costs < own for costs in rung.values())
        else:
            better = nondominated_order(rung).index(name)
        return better < max(1, int(len(rung) / self._factor))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune with each measurement that is not a trial's last."""
        measurement = Measurement.model_validate_json(result["measurement"])
        size = ModelSize.model_validate_json(result["size"]) if "size" in result else None
        continues = self.continues(trial.config["name"], measurement, size)
        return self.CONTINUE if continues else self.STOP


def bracket_of(number: int, brackets: int, factor: float) -> int:
    """Returns the Hyperband bracket of a trial; bracket 0 stops earliest.

    Of n brackets the one that judges at k rungs gets a share of n / (k + 1) · factor^k (Li et al.,
    "Hyperband", JMLR 2018, algorithm 1). Each trial is assigned to the bracket that brings the
    actual shares nearest to these.
    """
    shares = [brackets / (k + 1) * factor**k for k in reversed(range(brackets))]
    assigned = [0] * brackets
    for _ in range(number + 1):
        bracket = min(range(brackets), key=lambda b: ((assigned[b] + 1) / shares[b], b))
        assigned[bracket] += 1
    return bracket
