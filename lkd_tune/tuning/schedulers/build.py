"""The schedulers by name.

To add one: an entry in `SCHEDULERS`, and its name in `lkd_tune.config.settings.search.Scheduler`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.records.trial_record import TrialRecord
from lkd_tune.tuning.schedulers.asha import SuccessiveHalving
from lkd_tune.tuning.schedulers.median import MedianStopping


def build_scheduler(settings: SpaceSettings, records: Iterable[TrialRecord]) -> Any:
    """Returns the scheduler that `search.scheduler` names, None if no trial is stopped.

    Args:
        settings: The settings of the search.
        records: The trials so far, for a search that is resumed.
    """
    return SCHEDULERS[settings.search.scheduler](settings, records)


def _build_asha(settings: SpaceSettings, records: Iterable[TrialRecord]) -> SuccessiveHalving:
    return SuccessiveHalving(settings.search.reduction_factor, records, settings.objectives)


def _build_hyperband(settings: SpaceSettings, records: Iterable[TrialRecord]) -> SuccessiveHalving:
    return SuccessiveHalving(
        settings.search.reduction_factor,
        records,
        settings.objectives,
        brackets=settings.train.evaluations,
    )


SCHEDULERS: dict[str, Callable[[SpaceSettings, Iterable[TrialRecord]], Any]] = {
    "asha": _build_asha,
    "hyperband": _build_hyperband,
    "median": lambda settings, records: MedianStopping(records),
    "none": lambda settings, records: None,
}
