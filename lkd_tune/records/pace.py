"""What a distillation tells between two evaluations: how far it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How far a training is.

    Attributes:
        step: Optimizer steps done.
        total_steps: Of the whole training.
        train_s: Seconds that they took, evaluations not counted.
    """

    step: int
    total_steps: int
    train_s: float

    @property
    def left_s(self) -> float:
        """Seconds that are left, at the pace of the steps that are done."""
        return self.train_s * (self.total_steps - self.step) / self.step

    def whole_s_since(self, earlier: Pace) -> float:
        """Seconds that all steps take at the pace of those since an earlier look.

        The first steps of a process, most of all on a GPU, wait for kernels that are loaded.
        """
        return (self.train_s - earlier.train_s) * self.total_steps / (self.step - earlier.step)
