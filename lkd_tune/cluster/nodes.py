"""Whether nodes are fit for a search: the right packages, and access to the run's folder.

Nodes that exist at the start are checked before anything runs (`check_nodes`). A node that is added
later, as all nodes of a cluster with an autoscaler may be, is checked by the first trial or task
that runs there (`check_this_node`).
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lkd_tune.cluster.ray import Capacity, check_capacity, workers_on
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.uri import is_uri
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import StorageError, Store
from lkd_tune.version import __version__

# A node has to start Ray's worker before it can answer, which takes seconds.
_NODE_TIMEOUT_S = 60.0
# Packages whose version changes a student. Ray itself checks its own version and Python's.
_PACKAGES = ("torch", "deepspeed", "transformers", "tokenizers", "datasets")
# How long a trial waits on a node that is not fit, which may still mount its file systems. No other
# trial starts there meanwhile.
_WAIT_UNTIL_FIT_S = 10.0
# Variables of a process without a GPU; by default Ray shows it all GPUs of its node.
WITHOUT_GPUS = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
_SHARED_FOLDER_ADVICE = "set --run-dir to a folder that all nodes share, such as one on NFS"


class UnfitNodeError(RuntimeError):
    """This node is not fit for the search; the trial is not the cause."""


@dataclass(frozen=True)
class NodeRequirements:
    """What a node needs to be fit for a search.

    Attributes:
        run: The run's folder, which the node has to read and write; None if nodes share none.
        versions: The driver's `installed_versions`.
    """

    run: str | None
    versions: Mapping[str, str]


def installed_versions() -> dict[str, str]:
    """Returns the versions of this package, and of those whose version changes a student."""
    found = {"lkd-tune": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name).partition("+")[0]  # ignores +cpu and +cu126
        except metadata.PackageNotFoundError:
            continue
    return found


def check_cluster(space: SearchSpace, run: RunFolder, *, is_local_cluster: bool) -> Capacity:
    """Returns how many trials of a space the cluster runs at a time, after a check of its nodes.

    Args:
        space: The space.
        run: The run's folder.
        is_local_cluster: Whether the cluster was started here, so that this machine is its node.

    Raises:
        SpecError: If it has no room for a trial, and no autoscaler; or if a node is not fit.
    """
    capacity = check_capacity(
        space.settings.resources,
        space.source,
        is_local_cluster=is_local_cluster,
        one_node=run.remote_uri is not None,
    )
    if not is_local_cluster:
        check_nodes(run)
    return capacity


def check_nodes(run: RunFolder) -> None:
    """Checks that each node of the cluster is fit for a search.

    Args:
        run: The run; its folder is created if necessary. If it is on an object store, nodes need
            access to that instead.

    Raises:
        SpecError: If a node does not see the folder or can't write there, or if it lacks a package
            or has another version of it than the driver.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = f"{run.where}/.seen-{uuid.uuid4().hex}"
    if run.remote_uri is None:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            Path(mark).write_text("driver", "utf-8")
        except OSError as error:
            message = f"can't be written by the driver: {error.strerror or error}"
            raise SpecError(Problem(run.where, "", message)) from None
    check = ray.remote(num_cpus=0, max_retries=0)(_check_folder_and_versions)
    answers = {}
    for node in ray.nodes():
        if node["Alive"]:
            on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            answers[check.options(scheduling_strategy=on_node).remote(mark)] = node
    ready, _ = ray.wait([*answers], num_returns=len(answers), timeout=_NODE_TIMEOUT_S)
    if run.remote_uri is None:
        Path(mark).unlink(missing_ok=True)
    problems = []
    for answer, node in answers.items():
        problem = _node_problem(answer if answer in ready else None, run)
        if problem is not None:
            problems.append(Problem(f"node {node['NodeManagerAddress']}", "", problem))
    if problems:
        raise SpecError(problems)


def _check_folder_and_versions(mark: str) -> tuple[dict[str, str], str | None]:
    """Returns the versions on this node, and why it can't use the folder with the driver's mark."""
    if is_uri(mark):
        try:
            Store(mark.rpartition("/")[0]).check_writable()
        except StorageError as error:
            return installed_versions(), str(error)
        return installed_versions(), None
    path = Path(mark)
    problem = _folder_problem(path.parent, lambda: path.read_text("utf-8") == "driver")
    return installed_versions(), problem


def _node_problem(answer: Any, run: RunFolder) -> str | None:
    """Returns why a node is not fit, None if it is.

    Args:
        answer: Ray's reference to the result of the check, None if there is no answer yet.
        run: The run.
    """
    import ray

    if answer is None:
        return f"did not answer within {_NODE_TIMEOUT_S:g} s; check its load and its disk space"
    try:
        versions, problem = ray.get(answer)
    except ray.exceptions.NodeDiedError:
        return None  # it was shut down meanwhile, as spot nodes are
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1][:200]
        return f"can't run lkd_tune ({last}); install lkd-tune=={__version__} on every node"
    if (difference := _version_problem(versions, installed_versions())) is not None:
        return difference
    if problem is not None and run.remote_uri is None:
        return f"{problem}: {run.path}; {_SHARED_FOLDER_ADVICE}"
    return problem


def check_this_node(requirements: NodeRequirements, wait_s: float = _WAIT_UNTIL_FIT_S) -> None:
    """Checks that the node that this runs on is fit, and waits some seconds until it is.

    Args:
        requirements: What it needs.
        wait_s: How long to wait.

    Raises:
        UnfitNodeError: If it is not fit by then.
    """
    deadline = time.monotonic() + wait_s
    while (problem := _problem_here(requirements)) is not None:
        if time.monotonic() >= deadline:
            raise unfit_node_error(problem)
        time.sleep(1.0)


def unfit_node_error(problem: str) -> UnfitNodeError:
    """Returns the error to raise on a node that is not fit; it names the node it is raised on."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return UnfitNodeError(f"node {ray.util.get_node_ip_address()} ({node}) {problem}")


def _problem_here(requirements: NodeRequirements) -> str | None:
    difference = _version_problem(installed_versions(), requirements.versions)
    if difference is not None or requirements.run is None:
        return difference
    run = RunFolder(Path(requirements.run))
    problem = _folder_problem(run.path, run.manifest.stat)
    return problem and f"{problem}: {run.path}; {_SHARED_FOLDER_ADVICE}"


def _version_problem(versions: Mapping[str, str], driver: Mapping[str, str]) -> str | None:
    """Returns which packages a node lacks or has in another version than the driver."""
    wrong = [
        f"{name} {versions[name]} (the driver {version})" if name in versions else f"no {name}"
        for name, version in driver.items()
        if versions.get(name) != version
    ]
    return f"has {', '.join(wrong)}; install the same on every node" if wrong else None


def _folder_problem(folder: Path, is_drivers: Callable[[], object]) -> str | None:
    """Returns why a folder can't be used on this node, None if it can.

    Args:
        folder: The folder to write to.
        is_drivers: Reads a file that the driver wrote; the result is true if it is that file.
    """
    try:
        if not is_drivers():
            return "has another folder there"
        trial_file = folder / f".seen-{uuid.uuid4().hex}"
        trial_file.write_text("node", "utf-8")
        trial_file.unlink()
    except FileNotFoundError:
        return "does not see it"
    except OSError as error:
        return f"can't write there ({error.strerror or error})"
    return None


class SearchNodes:
    """The nodes of a search; excludes those that turn out not to be fit.

    Args:
        requirements: What a node needs.
        resources: The resources of a trial.
        note: Called with a line for each node that is excluded.

    Attributes:
        requirements: As given.
        problem: Why no trial can run; None while enough nodes may be fit.
    """

    def __init__(
        self,
        requirements: NodeRequirements,
        resources: ResourceSettings,
        note: Callable[[str], Any],
    ):
        self.requirements, self._resources, self._note = requirements, resources, note
        # Actors that hold the resources of each excluded node, by its id.
        self._excluded: dict[str, list[Any]] = {}
        self.problem: str | None = None

    def exclude_unfit(self, error: str) -> bool:
        """Returns whether a failure was caused by an unfit node, which is excluded from now on.

        Args:
            error: The text of the failure.
        """
        found = re.search(r"UnfitNodeError: (node \S+ \((\w+)\) .*)", error)
        if found is None:
            return False
        problem, node_id = found[1], found[2]
        if node_id not in self._excluded:
            self._note(f"not used: {problem}")
            self._excluded[node_id] = self._occupy(node_id)
        workers = sum(workers_on(node, self._resources) for node in self._resources_of_nodes())
        if workers < self._resources.workers:
            self.problem = problem
        return True

    def max_cpus(self) -> float:
        """Returns the CPUs of the node with the most."""
        return max((node.get("CPU", 0) for node in self._resources_of_nodes()), default=0)

    def _resources_of_nodes(self) -> list[dict[str, float]]:
        """Returns the resources of each node that is alive and not excluded."""
        import ray

        alive = (node for node in ray.nodes() if node["Alive"])
        return [node["Resources"] for node in alive if node["NodeID"] not in self._excluded]

    def _occupy(self, node_id: str) -> list[Any]:
        """Reserves all of a node's room for trials; Ray has no other way to keep trials away."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = ray.remote(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )(_Reservation)
        (node,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == node_id)
        return [actor.remote() for _ in range(workers_on(node, self._resources))]


class _Reservation:
    """An actor that does nothing and holds the resources of a worker until the search ends."""
