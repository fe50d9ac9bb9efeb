"""What several seeds of a configuration tell: mean, confidence interval, and who is as good."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from scipy import stats

_LEVEL = 0.95


class Confirmed(BaseModel):
    """A configuration trained with seeds that had no part in choosing it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    trial: str
    """The trial of the search that had these settings, or the baseline."""
    seeds: list[int]
    scores: list[float]
    """Metric on dev for each seed."""
    failed: list[int]
    """Seeds that ended without a score: what diverges with one seed in three is no recipe."""
    mean: float
    low: float | None
    """Lower end of the mean's 95 % confidence interval (Student's t); None for a single seed."""
    high: float | None
    """Its upper end."""
    test_scores: list[float]
    """Metric on test for each seed, where there is a test split."""
    ties_with_best: bool
    """Whether it can't be told apart from the best mean (Welch's t-test, p > 0.05)."""


def summarise(
    scores: Mapping[str, Mapping[int, float]],
    tests: Mapping[str, Sequence[float]],
    failed: Mapping[str, Sequence[int]],
) -> list[Confirmed]:
    """Returns what the seeds of each configuration tell, the best mean first.

    Configurations of which a seed failed come after the others.

    Args:
        scores: Metric on dev by seed, by the configuration's name; those without any are left out.
        tests: Metrics on test by name.
        failed: Seeds that failed by name.
    """
    means = {name: statistics.mean(own.values()) for name, own in scores.items() if own}
    ordered = sorted(means, key=lambda name: (bool(failed.get(name)), -means[name], name))
    confirmed = []
    for name in ordered:
        values = list(scores[name].values())
        low, high = _interval(values)
        confirmed.append(
            Confirmed(
                trial=name,
                seeds=list(scores[name]),
                scores=values,
                failed=list(failed.get(name, [])),
                mean=means[name],
                low=low,
                high=high,
                test_scores=list(tests.get(name, [])),
                ties_with_best=alike(values, list(scores[ordered[0]].values())),
            )
        )
    return confirmed


def _interval(values: list[float]) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(_LEVEL, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def alike(values: list[float], best: list[float]) -> bool:
    """Whether scores can't be told from the best's; too few to judge by can't."""
    if values == best or min(len(values), len(best)) < 2:
        return True
    if len({*values}) == len({*best}) == 1:  # no spread to judge by
        return values[0] == best[0]
    return bool(stats.ttest_ind(values, best, equal_var=False).pvalue > 1 - _LEVEL)
