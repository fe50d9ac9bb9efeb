"""The order of a run's trials, best first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lkd_tune.records.pareto import costs_of, front_of, knee_of, nondominated_order
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import BASELINE, TrialRecord


@dataclass(frozen=True)
class Ranking:
    """The complete trials of a search in order.

    Attributes:
        names: Their names, best first.
        front: Names on the Pareto front; with one objective only the best.
    """

    names: list[str]
    front: list[str]

    def rank(self, name: str) -> int | None:
        """Returns a trial's rank, 1 for the best; None if the trial is not complete."""
        return self.names.index(name) + 1 if name in self.names else None


def rank_run(run: RunFolder) -> Ranking:
    """Returns the order of a run's trials; see `rank_trials`.

    Raises:
        SpecError: If the folder is not a run folder.
    """
    objectives = run.read_manifest().get("objectives", ["score"])
    return rank_trials(run.read_trials(), objectives, run.read_confirmation())


def rank_trials(
    records: Iterable[TrialRecord],
    objectives: Sequence[str],
    confirmed: Iterable[Mapping[str, Any]] = (),
) -> Ranking:
    """Returns the order of the complete trials that have a number.

    Trials that were confirmed with other seeds come first, ordered by their mean score: they were
    chosen by the score of one seed, which is biased upwards and not comparable with a mean. Of
    equal trials the earlier comes first. With several objectives the best trial is the knee of the
    kept students on the Pareto front.

    Args:
        records: All trials.
        objectives: Names of the objectives.
        confirmed: The entries of confirmation.json.
    """
    means = _trusted_means(confirmed)
    ranked = sorted((r for r in records if r.is_numbered and r.state == "complete"), key=_name)
    costs = {
        record.name: costs_of(objectives, means.get(record.name, record.score or 0.0), record.size)
        for record in ranked
    }
    with_mean = {name: own for name, own in costs.items() if name in means}
    others = {name: own for name, own in costs.items() if name not in means}
    if len(objectives) == 1:
        names = [
            name for part in (with_mean, others) for name in sorted(part, key=part.__getitem__)
        ]
        return Ranking(names, names[:1])
    front = front_of(costs)
    kept = [record.name for record in ranked if record.kept]
    knee = knee_of(costs, among=list(with_mean) or kept or None) or knee_of(costs)
    first = [knee] if knee is not None else []
    ordered = [*nondominated_order(with_mean), *nondominated_order(others)]
    return Ranking([*first, *(name for name in ordered if name != knee)], front)


def _trusted_means(confirmed: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean score over other seeds by which each confirmed trial is ranked.

    Trials with a failed seed are left out, because their mean is over the lucky seeds only; unless
    all trials have one.
    """
    entries = [entry for entry in confirmed if entry["trial"] != BASELINE]
    whole = [entry for entry in entries if not entry.get("failed")]
    return {entry["trial"]: entry["mean"] for entry in whole or entries}


def _name(record: TrialRecord) -> str:
    return record.name
