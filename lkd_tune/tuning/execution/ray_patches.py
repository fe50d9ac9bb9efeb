"""Workers whose loss Ray Tune would take for a fault of its own.

Where an actor's process is killed for want of memory, Ray gives the caller an OutOfMemoryError in
place of the error of an actor that died. Tune's actor manager knows only the latter, and raises a
RuntimeError that ends the search with all of its trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution import _internal as execution
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.tune.execution import tune_controller


class _ActorManager(execution.RayActorManager):
    """Tune's, which takes each way a process can go for the death of its actor."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError | NodeDiedError | WorkerCrashedError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def all_losses_survived() -> Iterator[None]:
    """Has searches that begin here survive the loss of a worker, whatever Ray says of it."""
    before = tune_controller.RayActorManager
    tune_controller.RayActorManager = _ActorManager
    try:
        yield
    finally:
        tune_controller.RayActorManager = before
