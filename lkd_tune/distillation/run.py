"""A distillation from its first step to its last, without a search around it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.bad_examples import BadExamplesError
from lkd_tune.distillation.engine import Distillation
from lkd_tune.records.measurement import Measurement, TrainingProgress

logger = logging.getLogger(__name__)


def distill(
    spec: TrialSpec,
    *,
    cache: Path | None = None,
    finish: Callable[[Distillation], None] | None = None,
    on_progress: Callable[[TrainingProgress], object] | None = None,
) -> Iterator[Measurement]:
    """Trains a student and gives a measurement at each evaluation, the last one at the end.

    Where bad examples are to be skipped it begins again without those it finds. As they are in no
    batch before the one they are found in, what was measured until then stays as it was.

    Args:
        spec: What to do.
        cache: Folder for tokenised data; none: the user's cache.
        finish: Called after the last measurement, as to save the student.
        on_progress: As for `Distillation`.

    Raises:
        SpecError: If the teacher, the data or a starting point can't be had or do not fit.
        DivergedError: If a loss is not finite.
    """
    skipped, told = list[int](), 0
    while True:
        try:
            with Distillation(
                spec, cache=cache, skipped=skipped, on_progress=on_progress
            ) as distillation:
                for measurement in distillation:
                    if measurement.step > told:
                        told = measurement.step
                        yield measurement
                if finish is not None:
                    finish(distillation)
                return
        except BadExamplesError as error:
            if not error.may_skip:
                raise
            logger.warning("%s", error)
            skipped += [bad.example for bad in error.examples]
