"""A process that runs the jobs outside the trials: preparation, and scores on test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ray

from lkd_tune.cluster.health import raise_if_ray_is_lost, ray_problem
from lkd_tune.cluster.nodes import WITHOUT_GPUS, NodeRequirements, check_this_node
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.files.disk import FullDiskError
from lkd_tune.records.manifest import add_cost

if TYPE_CHECKING:
    from lkd_tune.tuning.session import Session

# How often Ray restarts the process and its job when the process or its node is lost.
_MAX_RESTARTS = 3


class PreparationWorker:
    """Runs one job after another in the same process, so that what a job loads stays loaded.

    The process gets the GPUs of one trial worker, or on the CPU a whole node, because nothing else
    runs. It starts with the first job and ends, with all its memory, on leaving the `with` block.

    Args:
        session: The search, whose manifest records the cost of each job.
    """

    def __init__(self, session: Session):
        self._session = session
        self._cpus = 0.0
        self._process: Any = None

    def __enter__(self) -> PreparationWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, job: str, function: Any, *arguments: Any, poll: Any = lambda: None) -> Any:
        """Returns the result of a function, None if the search was interrupted.

        Args:
            job: The job's name in the manifest's costs, see `add_cost`.
            function: Called with the number of its threads and then the arguments.
            arguments: The other arguments of the function.
            poll: Called twice a second while the job runs.

        Raises:
            SpecError: As the function does, or if no node can take part.
            RayLostError: If Ray has died.
            FullDiskError: As the function does.
        """
        session, nodes = self._session, self._session.nodes
        began = time.monotonic()
        cost: tuple[float, float] | None = None
        result = self._submit(function, *arguments)
        try:
            while session.stop.reason != "interrupted":
                raise_if_ray_is_lost()
                poll()
                ready, _ = ray.wait([result], timeout=0.5)
                if not ready:
                    continue
                try:
                    value, cost = ray.get(result)
                    return value
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, SpecError | FullDiskError):
                        raise error.cause from None
                    if not nodes.exclude_unfit(str(error)):
                        raise
                    if nodes.problem is not None:
                        raise SpecError(Problem("", "", nodes.problem)) from None
                    self._end()  # to start on another node
                    result = self._submit(function, *arguments)
            ray.cancel(result)  # otherwise Ray prints that it will retry
            self._end()
            return None
        finally:
            # A job that did not finish has a cost too, which only this process has measured.
            wall_s, energy_j = cost or (time.monotonic() - began, 0.0)
            gpus = session.settings.resources.gpus
            held = {"gpu_s": wall_s * gpus, "cpu_s": wall_s * self._cpus}
            add_cost(session.run, job, {"wall_s": wall_s, **held, "energy_j": energy_j})

    def _submit(self, function: Any, *arguments: Any) -> Any:
        """Starts a job, in a new process if the size of the largest node has changed."""
        resources, nodes = self._session.settings.resources, self._session.nodes
        gpus = resources.gpus
        # At least the CPUs of a trial worker, so that an empty cluster gets a node for it.
        cpus = resources.cpus if gpus else max(resources.cpus, nodes.max_cpus())
        if cpus != self._cpus:
            self._end()
        if self._process is None:
            self._cpus = cpus
            # Threads that spin while they wait for each other make a narrow model fifty times
            # slower when anything else runs on the machine.
            variables = {"OMP_WAIT_POLICY": "PASSIVE", **({} if gpus else WITHOUT_GPUS)}
            self._process = ray.remote(
                num_cpus=self._cpus,
                num_gpus=gpus,
                max_restarts=_MAX_RESTARTS,
                max_task_retries=_MAX_RESTARTS,
                runtime_env={"env_vars": variables},
            )(_JobRunner).remote()
        return self._process.run.remote(
            nodes.requirements, function, max(1, int(self._cpus)), *arguments
        )

    def _end(self) -> None:
        if self._process is not None and ray_problem() is None:
            ray.kill(self._process)
        self._process = None


class _JobRunner:
    """The actor in the process."""

    def run(
        self, requirements: NodeRequirements, function: Any, *arguments: Any
    ) -> tuple[Any, tuple[float, float]]:
        """Returns a function's result, and its seconds and its GPU's joules.

        Raises:
            UnfitNodeError: If this node cannot take part.
        """
        began = time.monotonic()
        from lkd_tune.runtime.usage import GpuEnergy

        check_this_node(requirements)
        energy = GpuEnergy()
        value = function(*arguments)
        return value, (time.monotonic() - began, energy.joules() or 0.0)
