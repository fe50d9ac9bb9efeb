"""What a distillation tells at each evaluation: the gate back to the search."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict


class Measurement(BaseModel):
    """A student's state after `step` optimizer steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: int
    """Optimizer steps done: the only clock that a scheduler sees."""
    total_steps: int
    """Steps of the whole trial."""
    score: float
    """The task's metric on dev; larger is better."""
    metrics: dict[str, float]
    """All metrics on dev by name."""
    losses: dict[str, float]
    """Mean of each unweighted term since the last measurement, and `total`, the weighted sum."""
    lr: float | None = None
    """Learning rate by then, as its schedule has it; None in runs of earlier versions."""
    parameters: int
    """The student's parameters, embeddings included."""
    train_s: float
    """Seconds of training so far, evaluations not counted, earlier parts of a resumed trial
    included."""
    samples_per_s: float
    """Training examples per second since the last measurement, over all workers."""
    padding: float = 0.0
    """Share of the tokens in batches since the last measurement that were padding."""
    skipped: int = 0
    """Training examples that are left out as bad ones."""
    peak_host_gib: float = 0.0
    """Largest resident memory of a worker on the host."""
    peak_memory_gib: float
    """Largest memory of a worker in this trial: GPU memory allocated, or on a CPU resident
    memory of the process."""

    energy_j: float | None = None
    """Joules that the workers' GPUs took so far, by NVML's counters; None where there
    are none. All that runs on a GPU is counted, so of a GPU that trials share each has it all."""

    @property
    def share(self) -> float:
        """Share of the trial's steps that are done."""
        return self.step / self.total_steps

    @property
    def halvings(self) -> int:
        """How often the trial's steps were halved to give this one: 0 at the end, 2 at a quarter.

        Trials of any number of steps are compared by it; of an odd number a half is rounded.
        """
        return round(math.log2(self.total_steps / self.step))

    @property
    def finished(self) -> bool:
        """Whether this is the trial's last measurement."""
        return self.step >= self.total_steps
