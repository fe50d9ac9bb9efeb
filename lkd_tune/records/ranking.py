"""Which trial is the best, and which come next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lkd_tune.records.pareto import by_front, costs_of, front_of, knee_of
from lkd_tune.records.run import BASELINE, RunFolder, TrialRecord


@dataclass(frozen=True)
class Ranking:
    """The complete trials in order.

    Attributes:
        names: Best first.
        front: Those of the Pareto front; with one objective the best alone.
    """

    names: list[str]
    front: list[str]

    def rank(self, name: str) -> int | None:
        """Returns 1 for the best; None for a trial that is not complete."""
        return self.names.index(name) + 1 if name in self.names else None


def rank_run(run: RunFolder) -> Ranking:
    """Returns the order of a run's trials, as `rank_trials`.

    Raises:
        SpecError: If the folder is not that of a run.
    """
    objectives = run.read_manifest().get("objectives", ["score"])
    return rank_trials(run.read_trials(), objectives, run.read_confirmation())


def rank_trials(
    records: Iterable[TrialRecord],
    objectives: Sequence[str],
    confirmed: Iterable[Mapping[str, Any]] = (),
) -> Ranking:
    """Returns the order of the drawn trials that are complete.

    Trials that were confirmed with other seeds come first, by their mean: what one seed scored
    has chosen them, and can't be compared with a mean. Of equal ones the earlier comes first, as
    with the kept students. With several objectives the first is the knee of those of the front
    that are kept.

    Args:
        records: All trials.
        objectives: What is best.
        confirmed: The entries of confirmation.json.
    """
    means = _trusted_means(confirmed)
    drawn = sorted((r for r in records if r.is_drawn and r.state == "complete"), key=_name)
    costs = {
        record.name: costs_of(objectives, means.get(record.name, record.score or 0.0), record.size)
        for record in drawn
    }
    with_mean = {name: own for name, own in costs.items() if name in means}
    others = {name: own for name, own in costs.items() if name not in means}
    if len(objectives) == 1:
        names = [
            name for part in (with_mean, others) for name in sorted(part, key=part.__getitem__)
        ]
        return Ranking(names, names[:1])
    front = front_of(costs)
    kept = [record.name for record in drawn if record.kept]
    knee = knee_of(costs, among=list(with_mean) or kept or None) or knee_of(costs)
    first = [knee] if knee is not None else []
    rest = [name for part in (with_mean, others) for name in by_front(part) if name != knee]
    return Ranking([*first, *rest], front)


def _trusted_means(confirmed: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean scores of other seeds that trials are ranked by, by trial.

    Left out are those of which a seed failed, whose mean is one of the lucky seeds; unless there
    are no others.
    """
    entries = [entry for entry in confirmed if entry["trial"] != BASELINE]
    whole = [entry for entry in entries if not entry.get("failed")]
    return {entry["trial"]: entry["mean"] for entry in whole or entries}


def _name(record: TrialRecord) -> str:
    return record.name
