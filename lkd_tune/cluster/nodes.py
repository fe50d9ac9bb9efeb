"""Whether nodes can take part in a search.

Those of the start are asked before anything runs (`check_nodes`). One that comes later, as all do
on a cluster that grows from none, is looked at by the first trial or task that comes to it
(`check_this_node`).
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

from lkd_tune.cluster.ray import Room, bundles_on, check_room
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.uri import is_address
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import StorageError, Store
from lkd_tune.version import __version__

# A node that is asked has to load Ray's worker first, which takes seconds.
_NODE_ANSWERS_S = 60.0
# What makes a student another one, or none at all. Ray compares itself and Python.
_PACKAGES = ("torch", "deepspeed", "transformers", "tokenizers", "datasets")
# A node may be there before what it mounts. A trial that comes to one that stays unfit is kept as
# long, and no other trial comes there meanwhile.
_PATIENCE_S = 10.0
# For a process that was given no GPU: by itself Ray shows it all of its node's.
WITHOUT_GPUS = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
_SHARE = "give a folder that all nodes share, such as NFS, by --run-dir"


class UnfitNodeError(RuntimeError):
    """This node can't take part; the trial is not to blame."""


@dataclass(frozen=True)
class Needs:
    """What a node has to have.

    Attributes:
        run: A run's folder, to be seen and written; None: nodes share none.
        versions: The driver's, as `versions` tells them.
    """

    run: str | None
    versions: Mapping[str, str]


def versions() -> dict[str, str]:
    """Returns the versions here of this package and of those that decide what a student becomes."""
    found = {"lkd-tune": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name).partition("+")[0]  # for CPU or CUDA: the same
        except metadata.PackageNotFoundError:
            continue
    return found


def find_room(space: SearchSpace, run: RunFolder, *, alone: bool) -> Room:
    """Returns what room a cluster has for a space's trials, on nodes that can take part.

    Args:
        space: What is searched.
        run: Where.
        alone: Whether the cluster was started here, so that it is this machine.

    Raises:
        SpecError: If it has none and gets none, or a node can't take part.
    """
    settings = space.settings.resources
    room = check_room(settings, space.source, alone=alone, one_node=run.home is not None)
    if not alone:
        check_nodes(run)
    return room


def check_nodes(run: RunFolder) -> None:
    """Asks each node of the cluster whether it can take part.

    Args:
        run: Its folder is made if need be; of a run with a home that is what nodes have to see.

    Raises:
        SpecError: If a node does not see the folder or can't write there, or lacks this package or
            another that trials need, or has another version of them.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = f"{run.where}/.seen-{uuid.uuid4().hex}"
    if run.home is None:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            Path(mark).write_text("driver", "utf-8")
        except OSError as error:
            message = f"can't be written by the driver: {error.strerror or error}"
            raise SpecError(Problem(run.where, "", message)) from None
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            asked[look.options(scheduling_strategy=there).remote(mark)] = node
    ready, _ = ray.wait([*asked], num_returns=len(asked), timeout=_NODE_ANSWERS_S)
    if run.home is None:
        Path(mark).unlink(missing_ok=True)
    problems = []
    for answer, node in asked.items():
        trouble = _unfit(answer if answer in ready else None, run)
        if trouble is not None:
            problems.append(Problem(f"node {node['NodeManagerAddress']}", "", trouble))
    if problems:
        raise SpecError(problems)


def _look(mark: str) -> tuple[dict[str, str], str | None]:
    """Returns the versions here, and why the marked folder can't be used."""
    if is_address(mark):
        try:
            Store(mark.rpartition("/")[0]).check_writable()
        except StorageError as error:
            return versions(), str(error)
        return versions(), None
    path = Path(mark)
    return versions(), _trouble_with(path.parent, lambda: path.read_text("utf-8") == "driver")


def _unfit(answer: Any, run: RunFolder) -> str | None:
    import ray

    if answer is None:
        return f"did not answer within {_NODE_ANSWERS_S:g} s; is it overloaded, or its disk full?"
    try:
        here, trouble = ray.get(answer)
    except ray.exceptions.NodeDiedError:
        return None  # on its way out, as a spot node may be
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1][:200]
        return f"can't run lkd_tune ({last}); install lkd-tune=={__version__} on every node"
    if (other := _difference(here, versions())) is not None:
        return other
    if trouble is not None and run.home is None:
        return f"{trouble}: {run.path}; {_SHARE}"
    return trouble


def check_this_node(needs: Needs, patience_s: float = _PATIENCE_S) -> None:
    """Looks whether the node that this runs on is fit, for some seconds if it is not.

    Args:
        needs: What it has to have.
        patience_s: How long it may lack that.

    Raises:
        UnfitNodeError: If it stays unfit.
    """
    deadline = time.monotonic() + patience_s
    while (trouble := _trouble_here(needs)) is not None:
        if time.monotonic() >= deadline:
            raise unfit(trouble)
        time.sleep(1.0)


def unfit(trouble: str) -> UnfitNodeError:
    """Returns the error of a node, this one, that can't take part."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return UnfitNodeError(f"node {ray.util.get_node_ip_address()} ({node}) {trouble}")


def _trouble_here(needs: Needs) -> str | None:
    other = _difference(versions(), needs.versions)
    if other is not None or needs.run is None:
        return other
    run = RunFolder(Path(needs.run))
    trouble = _trouble_with(run.path, run.manifest.stat)
    return trouble and f"{trouble}: {run.path}; {_SHARE}"


def _difference(here: Mapping[str, str], driver: Mapping[str, str]) -> str | None:
    """Returns what a node lacks or has another version of than the driver, None if nothing."""
    wrong = [
        f"{name} {here[name]} (the driver {version})" if name in here else f"no {name}"
        for name, version in driver.items()
        if here.get(name) != version
    ]
    return f"has {', '.join(wrong)}; install the same on every node" if wrong else None


def _trouble_with(folder: Path, read: Callable[[], object]) -> str | None:
    """Returns why a folder can't be used here, None if it can.

    Args:
        folder: Where to write.
        read: Reads what the driver left there; what is nothing is something else.
    """
    try:
        if not read():
            return "holds something else there"
        own = folder / f".seen-{uuid.uuid4().hex}"
        own.write_text("node", "utf-8")
        own.unlink()
    except FileNotFoundError:
        return "does not see it"
    except OSError as error:
        return f"can't write there ({error.strerror or error})"
    return None


class SearchNodes:
    """What a search needs of nodes, and those that turned out not to have it.

    Args:
        needs: What a node has to have.
        resources: What a trial asks for.
        note: Told of each unfit node once.

    Attributes:
        needs: As given.
        problem: Why no trial can run; None while there may be a node that is fit.
    """

    def __init__(self, needs: Needs, resources: ResourceSettings, note: Callable[[str], Any]):
        self.needs, self._resources, self._note = needs, resources, note
        self._unfit: dict[str, list[Any]] = {}
        self.problem: str | None = None

    def is_to_blame(self, error: str) -> bool:
        """Returns whether something failed because its node is unfit; that is not used again.

        Args:
            error: The failure's text.
        """
        found = re.search(r"UnfitNodeError: (node \S+ \((\w+)\) .*)", error)
        if found is None:
            return False
        if found[2] not in self._unfit:
            self._note(f"not used: {found[1]}")
            self._unfit[found[2]] = self._occupy(found[2])
        if sum(bundles_on(node, self._resources) for node in self._fit()) < self._resources.workers:
            self.problem = found[1]
        return True

    def largest_cpus(self) -> float:
        """Returns the CPUs of the node that has most."""
        return max((node.get("CPU", 0) for node in self._fit()), default=0)

    def _fit(self) -> list[dict[str, float]]:
        """Returns what each node has that is not known to be unfit."""
        import ray

        alive = (node for node in ray.nodes() if node["Alive"])
        return [node["Resources"] for node in alive if node["NodeID"] not in self._unfit]

    def _occupy(self, name: str) -> list[Any]:
        """Takes all places for trials on a node, as Ray knows no other way to keep them away."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = self._resources
        place = ray.remote(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
        )(_Place)
        (node,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == name)
        return [place.remote() for _ in range(bundles_on(node, asked))]


class _Place:
    """What a trial would take of a node; given back when the search ends."""
