"""Asynchronous successive halving, with a rung at each evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from lkd_tune.config.starts import PUBLISHED
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.pareto import Costs, by_front, costs_of
from lkd_tune.records.run import TrialRecord
from lkd_tune.records.size import ModelSize


class Rungs(FIFOScheduler):
    """Stops a trial whose score is not among the best 1 / reduction_factor of its rung so far.

    Ray's own scheduler has rungs at fixed steps, reduction_factor apart. Here the rungs are where
    scores are: at 1/2, 1/4, … of a trial's own steps. So trials of different batch sizes or epochs
    are compared at the same point of their learning rate's schedule, and no evaluation is wasted
    between two rungs. The rule is that of Li et al., "A System for Massively Parallel
    Hyperparameter Tuning" (MLSys 2020): of n trials at a rung the best floor(n / factor), but at
    least one, go on; a trial is judged when it comes, by those that came before. With several
    objectives, the best are those first in `by_front`.

    With several brackets it is the asynchronous Hyperband of the same paper: bracket s is not
    judged at the first s rungs, and trials are dealt out to brackets in Hyperband's proportions, so
    that some of what starts slowly is seen to its end. Each bracket has rungs of its own.

    Args:
        reduction_factor: One in so many goes on.
        records: The trials of a search that is resumed. The last score of an unfinished one is
            left out: the trial reports it again and is judged then.
        objectives: What is best.
        brackets: 1 for successive halving; for Hyperband as many as there are evaluations.
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
                self.goes_on(record.name, measurement, record.size)

    def goes_on(self, name: str, measurement: Measurement, size: ModelSize | None = None) -> bool:
        """Notes a score and returns whether its trial goes on; asked again, it does."""
        bracket = bracket_of(int(name), self._brackets, self._factor) if self._brackets > 1 else 0
        halvings = measurement.halvings
        rung = self._rungs[bracket, halvings]
        first = bracket > 0 and halvings >= self._brackets - bracket
        if name in rung or measurement.finished or first:
            return True
        own = rung[name] = costs_of(self._objectives, measurement.score, size)
        if len(self._objectives) == 1:
            better = sum(costs < own for costs in rung.values())
        else:
            better = by_front(rung).index(name)
        return better < max(1, int(len(rung) / self._factor))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Tune with each measurement that is not a trial's last."""
        # The published recipe is what the others are compared with: it is never stopped.
        spared = trial.config["origin"] == PUBLISHED
        measurement = Measurement.model_validate_json(result["measurement"])
        size = ModelSize.model_validate_json(result["size"]) if "size" in result else None
        goes_on = self.goes_on(trial.config["name"], measurement, size)
        return self.CONTINUE if goes_on or spared else self.STOP


def bracket_of(number: int, brackets: int, factor: float) -> int:
    """Returns the Hyperband bracket of a trial, 0 the one that stops earliest.

    Of n brackets the one that is judged at k rungs gets a share of n / (k + 1) · factor^k (Li et
    al., "Hyperband", JMLR 2018, algorithm 1). Trials are dealt out such that after each one the
    shares are as near to that as can be.
    """
    shares = [brackets / (k + 1) * factor**k for k in reversed(range(brackets))]
    dealt = [0] * brackets
    for _ in range(number + 1):
        bracket = min(range(brackets), key=lambda b: ((dealt[b] + 1) / shares[b], b))
        dealt[bracket] += 1
    return bracket
