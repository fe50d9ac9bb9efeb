"""Measurements of a student as plain data: its evaluations, progress, size, and bad examples."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


class Measurement(BaseModel):
    """A student's state after `step` optimizer steps, measured at an evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: int
    """Optimizer steps done; the only clock that a scheduler sees."""
    total_steps: int
    """Optimizer steps of the whole trial."""
    score: float
    """The task's metric on dev; larger is better."""
    metrics: dict[str, float]
    """All metrics on dev by name."""
    losses: dict[str, float]
    """Mean of each unweighted term over the steps since the last measurement in which it counted,
    and `total`, the weighted sum. Terms that ended before are left out."""
    lr: float | None = None
    """Learning rate at this step; None in runs of earlier versions."""
    parameters: int
    """Number of the student's parameters, embeddings included."""
    train_s: float
    """Seconds of training so far, without evaluations. Includes the time before a trial was
    resumed."""
    samples_per_s: float
    """Training examples per second since the last measurement, over all workers."""
    padding: float = 0.0
    """Share of padding among the tokens of batches since the last measurement."""
    unlabelled: int = 0
    """Number of training examples without a label, copies and windows included."""
    skipped: int = 0
    """Number of bad training examples that are left out."""
    peak_host_gib: float = 0.0
    """Peak resident memory of a worker on the host; the largest of all workers."""
    peak_memory_gib: float
    """Peak memory of a worker; the largest of all workers. Allocated GPU memory, or on a CPU the
    resident memory of the process."""

    energy_j: float | None = None
    """Joules that the workers' GPUs have used so far, from NVML's counters; None without them. A
    counter includes everything that runs on its GPU, so trials that share one each count all."""

    @property
    def share(self) -> float:
        """Share of the trial's steps that are done."""
        return self.step / self.total_steps

    @property
    def halvings(self) -> int:
        """How often the trial's steps are halved to get this step: 0 at the end, 2 at a quarter.

        It makes trials with different numbers of steps comparable. Halves of odd numbers are
        rounded.
        """
        return round(math.log2(self.total_steps / self.step))

    @property
    def finished(self) -> bool:
        """Whether this is the trial's last measurement."""
        return self.step >= self.total_steps


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training between two evaluations.

    Attributes:
        step: Optimizer steps done.
        total_steps: Optimizer steps of the whole training.
        train_s: Seconds that the steps took, without evaluations.
    """

    step: int
    total_steps: int
    train_s: float

    @property
    def remaining_s(self) -> float:
        """Estimated seconds of the remaining steps, from the mean time of a step so far."""
        return self.train_s * (self.total_steps - self.step) / self.step

    def total_s_since(self, earlier: TrainingProgress) -> float:
        """Returns the estimated seconds of all steps, from the steps since `earlier`.

        It leaves out the first steps of a process, which wait for kernels to load, most of all on
        a GPU.
        """
        return (self.train_s - earlier.train_s) * self.total_steps / (self.step - earlier.step)


class ModelSize(BaseModel):
    """What a student's architecture costs; all but the latencies are known before it trains.

    The costs in `config/objectives.py`, and what explains them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    parameters: int
    """Number of parameters, embeddings included."""
    embedding_parameters: int | None = None
    """Number of parameters of the word embeddings. Unknown for runs of earlier versions."""
    flops: int
    """Floating-point operations of one forward pass for one example of `task.max_length` tokens,
    matrix products only; a multiplication and an addition are two."""
    disk_mb: float
    """Size of the saved weights in MB (10⁶ bytes): in bfloat16 if the student is trained in it,
    else in fp32."""
    latency_ms: float | None = None
    """Milliseconds for one example of `task.max_length` tokens on the trial's device: the 20 %
    quantile of many calls."""
    latency_ms_batch_32: float | None = None
    """Milliseconds for a batch of 32 such examples."""
    latency_spread: float | None = None
    """The 80 % quantile of the calls with one example as a multiple of `latency_ms`. Far above 1,
    the machine was busy. Unknown for runs of earlier versions."""
    device: str | None = None
    """Device and precision of the latencies, for example `NVIDIA H200, bf16`."""


class BadExample(BaseModel):
    """A training example that a student can't learn from: what is wrong with it and where it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    example: int
    """Index among the training examples, from 0; copies and windows count as examples."""
    split: str = "train"
    """The split that contains it."""
    row: int
    """Row of the split, from 1, without a header; in masked_lm a block of the text."""
    copy_of_row: int = 0
    """With augmented text: the number of the copy; 0 is the row itself."""
    term: str | None = None
    """The loss term that is not finite; None if the example raised an error."""
    found: str
    """`nan`, `inf` or `-inf`, or the error that was raised."""

    def __str__(self) -> str:
        copied = f", copy {self.copy_of_row}" if self.copy_of_row else ""
        wrong = f"{self.term} is {self.found}" if self.term else self.found
        return f"{self.split} row {self.row}{copied} ({wrong})"
