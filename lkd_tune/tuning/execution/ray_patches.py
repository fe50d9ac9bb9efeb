"""Patches of Ray Tune: for lost workers that it treats as internal errors, and for notebooks.

When an actor's process is killed because the node runs out of memory, Ray raises an
OutOfMemoryError instead of the error of a dead actor. Tune's actor manager handles only the
latter, and raises a RuntimeError that ends the search with all its trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution import _internal as execution
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.tune import ProgressReporter
from ray.tune.execution import tune_controller


class NoReport(ProgressReporter):
    """A reporter that shows nothing.

    In a notebook, Tune's own reporter clears the output of the cell when it is made, whatever the
    verbosity.
    """

    def should_report(self, trials: Any, done: bool = False) -> bool:
        """Returns False."""
        return False

    def report(self, trials: Any, done: bool, *sys_info: str) -> None:
        """Does nothing; it is never called."""


class _ActorManager(execution.RayActorManager):
    """Tune's actor manager; handles every loss of a process as the death of its actor."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError | NodeDiedError | WorkerCrashedError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def lost_workers_survived() -> Iterator[None]:
    """Makes searches that start in this context survive any loss of a worker."""
    original = tune_controller.RayActorManager
    tune_controller.RayActorManager = _ActorManager
    try:
        yield
    finally:
        tune_controller.RayActorManager = original
