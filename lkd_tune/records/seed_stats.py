"""Whether scores differ: means and intervals over seeds, ties with the best, the size of dev."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

_CONFIDENCE = 0.95
# Two students of one search, which are alike, differ in the answer to about a tenth of the rows.
_DIFFERING = 0.1
COARSE = 0.03
"""A dev split on which even larger differences may be chance is worth a note."""


class SeedStats(BaseModel):
    """Results of a configuration with seeds that had no part in choosing it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    trial: str
    """Name of the trial with these settings."""
    seeds: list[int]
    scores: list[float]
    """Metric on dev for each seed."""
    failed: list[int]
    """Seeds that ended without a score. A configuration that diverges with some seeds ranks below
    those that do not."""
    mean: float
    low: float | None
    """Lower end of the 95 % confidence interval of the mean (Student's t); None for one seed."""
    high: float | None
    """Its upper end."""
    test_scores: list[float]
    """Metric on test for each seed, if there is a test split."""
    ties_with_best: bool
    """Whether it is statistically indistinguishable from the best (Welch's t-test, p > 0.05)."""


def summarise_seeds(
    scores: Mapping[str, Mapping[int, float]],
    tests: Mapping[str, Sequence[float]],
    failed: Mapping[str, Sequence[int]],
) -> list[SeedStats]:
    """Returns the statistics of each configuration, the best mean first.

    Configurations with a failed seed come after the others.

    Args:
        scores: Metric on dev by configuration and seed. Configurations without any are left out.
        tests: Metrics on test by configuration.
        failed: Failed seeds by configuration.
    """
    means = {name: statistics.mean(own.values()) for name, own in scores.items() if own}
    ordered = sorted(means, key=lambda name: (bool(failed.get(name)), -means[name], name))
    confirmed = []
    for name in ordered:
        values = list(scores[name].values())
        low, high = _interval(values)
        confirmed.append(
            SeedStats(
                trial=name,
                seeds=list(scores[name]),
                scores=values,
                failed=list(failed.get(name, [])),
                mean=means[name],
                low=low,
                high=high,
                test_scores=list(tests.get(name, [])),
                ties_with_best=is_indistinguishable(values, list(scores[ordered[0]].values())),
            )
        )
    return confirmed


def _interval(values: list[float]) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    if error == 0:
        return mean, mean
    from scipy import stats  # takes a moment

    low, high = stats.t.interval(_CONFIDENCE, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def difference_interval(
    values: list[float], others: list[float]
) -> tuple[float | None, float | None]:
    """Returns the 95 % confidence interval of the difference between two means (Welch).

    Both ends are None if there are too few scores.
    """
    if min(len(values), len(others)) < 2:
        return None, None
    difference = statistics.mean(values) - statistics.mean(others)
    if len({*values}) == len({*others}) == 1:
        return difference, difference
    from scipy import stats  # takes a moment

    welch = stats.ttest_ind(values, others, equal_var=False)
    interval = welch.confidence_interval(_CONFIDENCE)
    return float(interval.low), float(interval.high)


def is_indistinguishable(values: list[float], best: list[float]) -> bool:
    """Whether scores are statistically indistinguishable from the best ones.

    True if there are too few scores for a test.
    """
    if values == best or min(len(values), len(best)) < 2:
        return True
    if len({*values}) == len({*best}) == 1:  # the t-test needs some variance
        return values[0] == best[0]
    from scipy import stats  # takes a moment

    return bool(stats.ttest_ind(values, best, equal_var=False).pvalue > 1 - _CONFIDENCE)


def difference_by_chance(rows: int) -> float:
    """Returns half the 95 % interval of the difference between two students that are equally good.

    The difference of their shares of right answers has the variance d / n, where d is the share of
    the n rows for which exactly one of them is right, here a tenth.

    Args:
        rows: Number n of rows in dev.
    """
    return 1.96 * math.sqrt(_DIFFERING / rows)
