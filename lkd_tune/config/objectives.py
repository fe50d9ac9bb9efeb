"""What a search can optimise or limit: the score of a student, and what its architecture costs.

`OBJECTIVES` is the only list of them; settings, limits, ranking, plots and trackers read it.
To add a cost, add an entry here, a field of `ModelSize`, and the code in `models/size.py` that
measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Objective:
    """A quantity that a search can optimise.

    Attributes:
        name: Its name in `objectives` and `limits`, in size.json and in the leaderboard.
        meaning: What is measured, and in which unit; shown in the reference of the settings.
        label: What it is called in plots and texts.
        unit: The unit in which it is shown.
        heading: Heading of its column in tables, where values are shown in `unit`.
        scale: Measured values are divided by it to get values in `unit`.
        measured: When it is known. `score`: at the end of training. `architecture`: before the
            student is trained, from its configuration. `timing`: before it is trained, on the
            device of its trial.
        maximize: Whether larger values are better; else smaller ones are.
    """

    name: str
    meaning: str
    label: str
    unit: str
    heading: str
    scale: float = 1.0
    measured: Literal["score", "architecture", "timing"] = "architecture"
    maximize: bool = False

    @property
    def axis(self) -> str:
        """Label of the axis of a plot, in `unit`."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


SCORE = "score"
OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(
            SCORE,
            meaning="Metric of the task on dev.",
            label="score",
            unit="",
            heading="score",
            measured="score",
            maximize=True,
        ),
        Objective(
            "parameters",
            meaning="Number of parameters, embeddings included.",
            label="parameters",
            unit="millions",
            heading="params",
            scale=1e6,
        ),
        Objective(
            "flops",
            meaning="Floating-point operations of one forward pass for one example of "
            "task.max_length tokens.",
            label="computation for one example",
            unit="GFLOPs",
            heading="GFLOPs",
            scale=1e9,
        ),
        Objective(
            "disk_mb",
            meaning="Size of the saved weights in MB (10⁶ bytes).",
            label="weights on disk",
            unit="MB",
            heading="MB",
        ),
        Objective(
            "latency_ms",
            meaning="Milliseconds for one example of task.max_length tokens on the trial's device.",
            label="latency of one example",
            unit="ms",
            heading="ms",
            measured="timing",
        ),
        Objective(
            "latency_ms_batch_32",
            meaning="Milliseconds for a batch of 32 such examples.",
            label="latency of a batch of 32",
            unit="ms",
            heading="ms of 32",
            measured="timing",
        ),
    )
}
COSTS: Mapping[str, Objective] = {
    name: objective for name, objective in OBJECTIVES.items() if objective.measured != "score"
}
"""What a student's architecture costs: all objectives but the score."""

if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]
