"""A process beside the trials, for the teacher, the data, and scores on test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ray

from lkd_tune.cluster.nodes import WITHOUT_GPUS, Needs, check_this_node
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.files.disk import FullDiskError
from lkd_tune.records.manifest import add_cost

if TYPE_CHECKING:
    from lkd_tune.tuning.session import Session

# So often Ray starts it again, and what it was at, when the process or its node is lost.
_RESTARTS = 3


class SideProcess:
    """Does one piece of work after another; what one of them has loaded is there for the next.

    It gets a worker's GPUs, or on the CPU a whole node, as nothing else runs. It begins with its
    first piece of work and ends, with all its memory, on leaving the `with`.

    Args:
        session: The search, whose manifest is told what the work has cost.
    """

    def __init__(self, session: Session):
        self._session = session
        self._cpus = 0.0
        self._process: Any = None

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, part: str, function: Any, *arguments: Any, poll: Any = lambda: None) -> Any:
        """Returns what a function gives, None if interrupted.

        Args:
            part: What the cost is of, see `add_cost`.
            function: Called with the number of its threads and then the arguments.
            arguments: What it is called with.
            poll: Called twice a second while waiting.

        Raises:
            SpecError, FullDiskError: As the function does; or if no node can take part.
        """
        session, nodes = self._session, self._session.nodes
        began = time.monotonic()
        cost: tuple[float, float] | None = None
        result = self._ask(function, *arguments)
        try:
            while session.stop.reason != "interrupted":
                poll()
                ready, _ = ray.wait([result], timeout=0.5)
                if not ready:
                    continue
                try:
                    found, cost = ray.get(result)
                    return found
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, SpecError | FullDiskError):
                        raise error.cause from None
                    if not nodes.is_to_blame(str(error)):
                        raise
                    if nodes.problem is not None:
                        raise SpecError(Problem("", "", nodes.problem)) from None
                    self._end()  # to begin on another node
                    result = self._ask(function, *arguments)
            ray.cancel(result)  # otherwise Ray tells that it is going to be tried again
            self._end()
            return None
        finally:
            # What did not come to its end has cost something, too; only our own clock tells of it.
            wall_s, energy_j = cost or (time.monotonic() - began, 0.0)
            gpus = session.settings.resources.gpus
            held = {"gpu_s": wall_s * gpus, "cpu_s": wall_s * self._cpus}
            add_cost(session.run, part, {"wall_s": wall_s, **held, "energy_j": energy_j})

    def _ask(self, function: Any, *arguments: Any) -> Any:
        """Begins a piece of work, in a new process where the largest node is another size now."""
        resources, nodes = self._session.settings.resources, self._session.nodes
        gpus = resources.gpus
        # At least a worker's CPUs, so that a cluster without any gets a node for it.
        cpus = resources.cpus if gpus else max(resources.cpus, nodes.largest_cpus())
        if cpus != self._cpus:
            self._end()
        if self._process is None:
            self._cpus = cpus
            # Threads that spin while they wait for each other slow a narrow model down fiftyfold
            # when anything else runs on the machine.
            variables = {"OMP_WAIT_POLICY": "PASSIVE", **({} if gpus else WITHOUT_GPUS)}
            self._process = ray.remote(
                num_cpus=self._cpus,
                num_gpus=gpus,
                max_restarts=_RESTARTS,
                max_task_retries=_RESTARTS,
                runtime_env={"env_vars": variables},
            )(_Work).remote()
        return self._process.do.remote(nodes.needs, function, max(1, int(self._cpus)), *arguments)

    def _end(self) -> None:
        if self._process is not None:
            ray.kill(self._process)
            self._process = None


class _Work:
    """What runs in the process."""

    def do(self, needs: Needs, function: Any, *arguments: Any) -> tuple[Any, tuple[float, float]]:
        """Returns what a function gives where a node is fit, its seconds and its GPU's joules."""
        began = time.monotonic()
        from lkd_tune.runtime.usage import GpuEnergy

        check_this_node(needs)
        energy = GpuEnergy()
        found = function(*arguments)
        return found, (time.monotonic() - began, energy.joules() or 0.0)
