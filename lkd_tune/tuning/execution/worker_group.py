"""The processes that train one student together, kept for many trials."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lkd_tune.cluster.nodes import NodeRequirements
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.tuning.execution.rank import LOOPBACK, Rank

# How long to wait for the other ranks after one has failed. They may be stuck in a collective call,
# which ends only after the timeout of the process group.
_GRACE_S = 10.0


class LostWorkerError(RuntimeError):
    """A process of the worker group is lost; the trial is not the cause."""


class WorkerGroup:
    """All ranks, which make the same calls in lockstep; this process is rank 0.

    Args:
        resources: The resources of a trial. The other ranks run in the bundles 1, 2, … of this
            actor's placement group.
        cwd: The working directory of all ranks.
        on_failure: Called with the error of another rank if this rank is stuck in a collective call
            with it, right before this process exits.
        requirements: What the node of a rank needs.

    Attributes:
        workers: The `node`, `host` and `pid` of each rank.

    Raises:
        UnfitNodeError: If a node is not fit.
        LostWorkerError: If another rank's process is lost.
    """

    def __init__(
        self,
        resources: ResourceSettings,
        cwd: str,
        on_failure: Callable[[BaseException], Any],
        requirements: NodeRequirements,
    ):
        self._own = Rank(resources.cpus, resources.gpus, cwd, requirements)
        self._on_failure = on_failure
        self._others: list[Any] = []
        if resources.workers > 1:
            placement_group = ray.util.get_current_placement_group()
            actor = ray.remote(Rank)
            self._others = [
                actor.options(
                    num_cpus=resources.cpus,
                    num_gpus=resources.gpus,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group, bundle),
                ).remote(resources.cpus, resources.gpus, cwd, requirements)
                for bundle in range(1, resources.workers)
            ]
        others = ray.get([other.location.remote() for other in self._others])
        self.workers: list[dict[str, Any]] = [self._own.location(), *others]
        address, port = _free_address(one_node=len({each["node"] for each in self.workers}) == 1)
        world = resources.workers
        self._lockstep("join", [(rank, world, address, port) for rank in range(world)])

    def run(self, method: str, *arguments: Any) -> Any:
        """Calls a method of all ranks; returns its result on rank 0.

        Raises:
            LostWorkerError: If another rank's process is lost.
            Exception: What the method raised on any rank.
        """
        return self._lockstep(method, [arguments] * (1 + len(self._others)))

    def disband(self) -> None:
        """Ends the other ranks and leaves the process group."""
        for other in self._others:
            ray.kill(other)
        self._others = []
        self._own.leave()

    def _lockstep(self, method: str, arguments: list[tuple[Any, ...]]) -> Any:
        calls = [
            getattr(other, method).remote(*of_rank)
            for other, of_rank in zip(self._others, arguments[1:], strict=True)
        ]
        try:
            with self._watched(calls):
                result = getattr(self._own, method)(*arguments[0])
        except Exception:
            # A lost peer shows here as a broken connection; raise the error of that rank instead.
            if calls:
                ray.wait(calls, num_returns=len(calls), timeout=_GRACE_S)
            error = _first_failure(calls)
            if error is not None:
                raise _cause(error) from None
            raise
        try:
            ray.get(calls)
        except ray.exceptions.RayError as error:
            raise _cause(error) from None
        return result

    @contextmanager
    def _watched(self, calls: list[Any]) -> Iterator[None]:
        """Exits this process if another rank fails and this one is stuck in a call inside."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1.0):
                error = _first_failure(calls)
                if error is not None and not done.wait(_GRACE_S):
                    cause = _cause(error)
                    if not isinstance(cause, LostWorkerError):
                        self._on_failure(cause)
                    os._exit(1)  # a collective call can't be interrupted

        if calls:
            threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()


def _first_failure(calls: list[Any]) -> ray.exceptions.RayError | None:
    ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0) if calls else ([], [])
    for call in ready:
        try:
            ray.get(call)
        except ray.exceptions.RayError as error:
            return error
    return None


def _cause(error: ray.exceptions.RayError) -> BaseException:
    """Returns the error that a rank raised, or a LostWorkerError."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause or error
    return LostWorkerError(str(error).strip().splitlines()[0])


def _free_address(*, one_node: bool) -> tuple[str, int]:
    """Returns the address by which the other ranks reach this one, and a port that is free now."""
    address = LOOPBACK if one_node else ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return address, probe.getsockname()[1]
