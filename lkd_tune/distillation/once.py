"""One distillation in this process, without Ray."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import Measurement, TrainingProgress
from lkd_tune.records.student_file import evaluated_on


def distill_here(
    spec: TrialSpec,
    *,
    to: Path | None = None,
    threads: int | None = None,
    on_progress: Callable[[TrainingProgress], object] | None = None,
) -> Iterator[tuple[str, Measurement]]:
    """Gives the measurements of a trial, each after the name of its score; see `to`.

    The last one is that of the fine-tuned student, where `evaluate_on` gives the score.
    The spec's workers become one: a batch is the same whatever the number of workers.

    Args:
        spec: The trial.
        to: Folder that the student lies in at the end; none: it is not kept.
        threads: CPU threads; none: those of the spec's resources, with which a result repeats
            to the last bit.
        on_progress: As for `Distillation`.
    """
    import torch

    from lkd_tune.distillation.engine import Distillation
    from lkd_tune.distillation.run import distill

    torch.set_num_threads(threads or max(1, int(spec.resources.cpus)))
    alone = ResourceSettings(**{**spec.resources.model_dump(), "workers": 1})
    spec = spec.model_copy(update={"resources": alone})
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
        facts = {
            "score": (fine_tuned or measurement).score,
            "evaluated_on": evaluated_on(spec, fine_tuned),
            "metrics": measurement.metrics,
            "spec": spec.model_dump(mode="json"),
        }
        write_atomically(to / "student.json", json.dumps(facts, indent=2))


def refuse_used_folder(folder: Path | None) -> None:
    """Refuses a folder for a student that holds anything.

    Raises:
        SpecError: If it does.
    """
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError(Problem("--to", "", f"{folder} is not empty; name a new folder"))
