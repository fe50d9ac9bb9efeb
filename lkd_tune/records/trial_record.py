"""One trial as plain data: its settings, its measurements, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement, ModelSize

Ending = Literal["complete", "stopped", "refused", "failed"]
State = Literal["running", "complete", "stopped", "refused", "failed"]
BASELINE = "baseline"
"""In runs of earlier versions, the name of the winner's student that was trained on the labels
alone. It is not ranked, as its student was not kept."""
LABELS_ALONE = "labels alone"
"""The origin of a numbered trial that no sampler drew: a winner's student, trained on the labels
alone at the end of the search."""


class Outcome(BaseModel):
    """How a trial ended, and what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    state: Ending
    """complete: it did all its steps; stopped: by the scheduler; refused: above a limit, so it was
    not trained; failed: see `error`."""
    error: str | None = None
    """Why it was refused or failed, in one line; error.txt has the traceback of a failure."""
    diverged: bool = False
    """Whether it failed because a loss was not finite, so that the sampler avoids its settings."""
    wall_s: float = 0.0
    """Seconds from the trial's start to its end, evaluations included."""
    gpu_s: float = 0.0
    """Seconds times GPUs held."""
    cpu_s: float = 0.0
    """Seconds times CPU cores held."""


def outcome_of(
    state: Ending,
    resources: ResourceSettings,
    wall_s: float,
    error: str | None = None,
    *,
    worker_s: float | None = None,
) -> Outcome:
    """Returns an outcome with the cost of holding a trial's resources for `wall_s` seconds.

    Args:
        state: How the trial ended.
        resources: What each of its workers had.
        wall_s: Seconds from its start to its end.
        error: Why it was refused or failed.
        worker_s: Seconds summed over its workers. Default: `wall_s` times `resources.workers`.
    """
    if worker_s is None:
        worker_s = wall_s * resources.workers
    return Outcome(
        state=state,
        error=error,
        wall_s=wall_s,
        gpu_s=worker_s * resources.gpus,
        cpu_s=worker_s * resources.cpus,
    )


@dataclass(frozen=True)
class TrialRecord:
    """A trial as its folder has it.

    Attributes:
        name: `0007` for the eighth trial of the search, `0007-seed1` for the same with another
            seed.
        spec: Its settings.
        measurements: All measurements so far, by step.
        outcome: How it ended; None while it runs, or after a crash until it is resumed.
        kept: Whether its student is kept.
        size: What its architecture costs; None until it is measured.
        origin: Where its settings come from if no sampler drew them: `recipe labels`, the trial of
            another run that the search started from, or `LABELS_ALONE`.
        accumulation: Number of parts that its micro-batches are split into because it ran out of
            memory.
        fine_tuned: Last measurement of its student's fine-tuning on `evaluate_on`.
    """

    name: str
    spec: TrialSpec
    measurements: tuple[Measurement, ...]
    outcome: Outcome | None
    kept: bool
    size: ModelSize | None = None
    origin: str | None = None
    accumulation: int = 1
    fine_tuned: Measurement | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether it is ranked and its student kept, unlike other seeds and ablations."""
        return self.name.isdigit()

    @property
    def is_drawn(self) -> bool:
        """Whether the search drew it, so that it is one of `search.trials`."""
        return self.is_numbered and self.origin != LABELS_ALONE

    @property
    def state(self) -> State:
        """`running` until there is an outcome."""
        return self.outcome.state if self.outcome else "running"

    @property
    def score(self) -> float | None:
        """Score of the last measurement; with `evaluate_on` the fine-tuned student's.

        With `evaluate_on` it is None until the student is fine-tuned: the measurements before have
        another metric.
        """
        if self.spec.evaluate_on is not None:
            return self.fine_tuned.score if self.fine_tuned else None
        return self.measurements[-1].score if self.measurements else None
