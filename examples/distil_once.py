"""One distillation with a loop of your own, without Ray.

    python examples/distil_once.py runs/first/students/0007/student.json again

Trains a student of a search again with another seed, looks at it after each evaluation, and ends
early when its score no longer rises.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lkd_tune.config.trial import read_trial_spec
from lkd_tune.distillation.engine import Distillation


def main(spec_file: str, to: str, seed: int = 7) -> float:
    """Writes the student into the folder `to`; returns its score on dev."""
    # A spec is frozen plain data: all that a result depends on. A changed copy is another trial.
    spec = read_trial_spec(Path(spec_file)).model_copy(update={"seed": seed})
    best = float("-inf")
    with Distillation(spec) as distillation:
        # The loop trains up to the next evaluation each time it is asked; not asking is stopping.
        for measurement in distillation:
            print(
                f"step {measurement.step:>5} of {measurement.total_steps}",
                f"{spec.task.metric} {measurement.score:.3f}",
                f"loss {measurement.losses['total']:.4f}",
                sep="  ",
            )
            if measurement.score <= best:
                break
            best = measurement.score
        distillation.save_student(Path(to))
    return measurement.score


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
