"""A distillation from its first step to its last, without a search."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.bad_examples import BadExamplesError
from lkd_tune.distillation.balance import with_loss_scales
from lkd_tune.distillation.engine import Distillation
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import Measurement, TrainingProgress
from lkd_tune.records.student_file import evaluated_on

logger = logging.getLogger(__name__)


def distill(
    spec: TrialSpec,
    *,
    cache: Path | None = None,
    finish: Callable[[Distillation], None] | None = None,
    on_progress: Callable[[TrainingProgress], object] | None = None,
) -> Iterator[Measurement]:
    """Trains a student and yields a measurement at each evaluation, the last one at the end.

    If bad examples are to be skipped, it starts again without those that it finds. Earlier batches
    do not contain them, so earlier measurements stay the same and are not repeated.

    Args:
        spec: The trial.
        cache: Folder for tokenized data. Default: the user's cache.
        finish: Called after the last measurement, for example to save the student.
        on_progress: As for `Distillation`.

    Raises:
        SpecError: If the teacher, the data or another model can't be loaded or do not fit.
        DivergedError: If a loss is not finite.
    """
    skipped, last_step = list[int](), 0
    while True:
        try:
            with Distillation(
                spec, cache=cache, skipped=skipped, on_progress=on_progress
            ) as distillation:
                for measurement in distillation:
                    if measurement.step > last_step:
                        last_step = measurement.step
                        yield measurement
                if finish is not None:
                    finish(distillation)
                return
        except BadExamplesError as error:
            if not error.may_skip:
                raise
            logger.warning("%s", error)
            skipped += [bad.example for bad in error.examples]


def distill_locally(
    spec: TrialSpec,
    *,
    to: Path | None = None,
    threads: int | None = None,
    on_progress: Callable[[TrainingProgress], object] | None = None,
) -> Iterator[tuple[str, Measurement]]:
    """Runs a whole trial in this process, and yields (name of the score, measurement).

    If `evaluate_on` defines the score, the last measurement is that of the fine-tuned student. The
    trial runs on one worker; its batches do not depend on the number of workers.

    Args:
        spec: The trial.
        to: Folder for the student. Default: it is not kept.
        threads: CPU threads. Default: those of the spec's resources, which reproduce a result bit
            by bit.
        on_progress: As for `Distillation`.

    Raises:
        SpecError: As `distill`.
        DivergedError: As `distill`.
    """
    torch.set_num_threads(threads or max(1, int(spec.resources.cpus)))
    one_worker = ResourceSettings(**{**spec.resources.model_dump(), "workers": 1})
    spec = with_loss_scales(spec.model_copy(update={"resources": one_worker}))
    with tempfile.TemporaryDirectory() as scratch:
        student = to or Path(scratch) / "student"

        def finish(distillation: Distillation) -> None:
            if to is not None or spec.evaluate_on is not None:
                distillation.save_student(student)

        for measurement in distill(spec, finish=finish, on_progress=on_progress):
            yield spec.task.metric, measurement
        fine_tuned = None
        if spec.evaluate_on is not None:
            (fine_tuned,) = distill(spec.fine_tuning(str(student)), on_progress=on_progress)
            yield spec.score_name, fine_tuned
    if to is not None:
        content = {
            "score": (fine_tuned or measurement).score,
            "evaluated_on": evaluated_on(spec, fine_tuned),
            "metrics": measurement.metrics,
            "spec": spec.model_dump(mode="json"),
        }
        write_atomically(to / "student.json", json.dumps(content, indent=2))
