"""How one training is told on a terminal while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from lkd_tune.records.measurement import Measurement, TrainingProgress
from lkd_tune.tuning.progress.events import duration


def show_measurement(measurement: Measurement, metric: str) -> None:
    """Prints one line for a measurement."""
    losses = "  ".join(f"{name} {value:.4g}" for name, value in measurement.losses.items())
    print(
        f"step {measurement.step}/{measurement.total_steps}  {metric} {measurement.score:.4f}  "
        f"{losses}  {measurement.train_s:.0f} s",
        flush=True,
    )


@contextmanager
def shown_steps() -> Iterator[Callable[[TrainingProgress], None]]:
    """Gives what shows on a terminal's last line how far a training is; elsewhere nothing."""
    with Console().status("starting") as status:

        def show(pace: TrainingProgress) -> None:
            left = duration(pace.remaining_s)
            status.update(f"step {pace.step}/{pace.total_steps}, about {left} left")

        yield show
