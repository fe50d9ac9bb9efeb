"""The progress of one training on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from lkd_tune.records.measurement import Measurement, TrainingProgress
from lkd_tune.results.formatting import duration


def show_measurement(measurement: Measurement, metric: str) -> None:
    """Prints one line for a measurement."""
    losses = "  ".join(f"{name} {value:.4g}" for name, value in measurement.losses.items())
    print(
        f"step {measurement.step}/{measurement.total_steps}  {metric} {measurement.score:.4f}  "
        f"{losses}  {duration(measurement.train_s)}",
        flush=True,
    )


@contextmanager
def step_status() -> Iterator[Callable[[TrainingProgress], None]]:
    """Yields a function that shows a training's progress on the last line of a terminal.

    It shows nothing if standard output is not a terminal.
    """
    with Console().status("starting") as status:

        def show(progress: TrainingProgress) -> None:
            left = duration(progress.remaining_s)
            status.update(f"step {progress.step}/{progress.total_steps}, about {left} left")

        yield show
