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
    def whole_s(self) -> float:
        """Seconds that all steps will have taken, at the pace of those that are done."""
        return self.train_s * self.total_steps / self.step

    @property
    def left_s(self) -> float:
        """Seconds that are left of them."""
        return self.whole_s - self.train_s
