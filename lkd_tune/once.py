"""One distillation in this process, without Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from lkd_tune.spec.measurement import Measurement
from lkd_tune.spec.run import write_atomically
from lkd_tune.spec.settings import ResourceSettings
from lkd_tune.spec.trial import TrialSpec


def distill_here(
    spec: TrialSpec, *, to: Path | None = None, threads: int | None = None
) -> Iterator[Measurement]:
    """Gives the measurements of a trial; at the end the student lies in `to`.

    The spec's workers become one: a batch is the same whatever the number of workers.

    Args:
        spec: The trial.
        to: Folder for the student; none: it is not written.
        threads: CPU threads; none: those of the spec's resources, with which a result repeats
            to the last bit.
    """
    import torch

    from lkd_tune.distill.engine import Distillation, distill

    torch.set_num_threads(threads or max(1, int(spec.resources.cpus)))
    alone = ResourceSettings(**{**spec.resources.model_dump(), "workers": 1})
    spec = spec.model_copy(update={"resources": alone})
    measurements: list[Measurement] = []

    def finish(distillation: Distillation) -> None:
        if to is None:
            return
        distillation.save_student(to)
        last = measurements[-1]
        facts = {
            "score": last.score,
            "metrics": last.metrics,
            "spec": spec.model_dump(mode="json"),
        }
        write_atomically(to / "student.json", json.dumps(facts, indent=2))

    for measurement in distill(spec, finish=finish):
        measurements.append(measurement)
        yield measurement
