"""The Ray cluster of a search: connecting to it, its capacity, and what a trial reserves of it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lkd_tune.cluster.health import RayLostError
from lkd_tune.cluster.processes import MarkedProcesses
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.training import ResourceSettings, trials_on_a_gpu
from lkd_tune.config.source import Source
from lkd_tune.runtime.hardware import cpu_name

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

# Read by Ray when it is imported or started. Ray's own reporters, loggers and signal handlers are
# off, Tune saves no state (the run folder has all of it), and workers stay in the driver's
# directory.
_RAY_VARIABLES = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",  # kills a process that hangs when it leaves its group
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}
# Trials pass data through files, so that Ray's object store stays nearly empty.
_OBJECT_STORE_BYTES = 128 * 2**20
# An autoscaler reports every five seconds, but starts later than the head it runs on.
_AUTOSCALER_REPORT_S = 30.0


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Connects to a cluster, or starts one on this machine; disconnects or stops it at the end.

    Gives whether it was started here. Such a cluster never gets more nodes.

    Args:
        address: The cluster's address. Default: RAY_ADDRESS, which Ray sets in its jobs, else this
            machine. If this process is connected already, that connection is used and kept.

    Raises:
        SpecError: If there is no cluster at the address.
        RayLostError: If Ray does not start on this machine.
    """
    quieten_ray()
    import ray

    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        with MarkedProcesses() as processes, contextlib.ExitStack() as stack:
            with _loopback_only(), _free_agent_port(), _no_error_lines():
                # From 2.59 on, Ray requires a token by default: who reaches its ports may run code.
                try:
                    ray.init(
                        "local",
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE_BYTES,
                        **quiet,
                    )
                except Exception as error:
                    reason = " ".join(str(error).split())[:300]
                    message = f"Ray did not start on this machine: {reason}"
                    raise RayLostError(message) from error
            processes.note()
            _protect_token()
            stack.callback(ray.shutdown)
            yield True
        return
    try:
        ray.init(address, **quiet)
    except (ConnectionError, ValueError) as error:
        message = f"can't connect to {address}: {' '.join(str(error).split())[:300]}"
        raise SpecError(Problem("", "--address", message)) from None
    try:
        yield False
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Makes a Ray that is started inside listen on loopback only.

    For that, its processes have to use 127.0.0.1 as this machine's address. Ray replaces it by
    another one, except where it does not support clusters of several machines, as on macOS and
    Windows. This sets the same switch.
    """
    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    variable, constant = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        os.environ.pop(name)
        if variable is not None:
            os.environ[name] = variable
        ray_constants.ENABLE_RAY_CLUSTER = constant


@contextlib.contextmanager
def _free_agent_port() -> Iterator[None]:
    """Gives the agent of a Ray that is started inside a free port.

    `ray.init` has no option for it. With the default port, the head of a cluster on this machine
    could not start its own agent, which starts the jobs that are submitted to it.
    """
    from ray._private import parameter

    original = parameter.RayParams
    parameter.RayParams = functools.partial(original, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        parameter.RayParams = original


@contextlib.contextmanager
def _no_error_lines() -> Iterator[None]:
    """Keeps a Ray that is started inside from printing the last lines of logs when it dies.

    `log_to_driver` is not about them. Of trials that fail, the search prints the errors itself.
    """
    from ray._private import worker

    original = worker.listen_error_messages
    worker.listen_error_messages = lambda *_: None
    try:
        yield
    finally:
        worker.listen_error_messages = original


def _protect_token() -> None:
    """Makes the token that Ray created for this user readable by this user only."""
    with contextlib.suppress(OSError):
        token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        if token.stat().st_uid == os.getuid() and token.stat().st_mode & 0o077:
            token.chmod(0o600)


def withhold_credentials() -> None:
    """Keeps the driver's AWS credentials out of the runtime environments of Tune's actors.

    Ray writes those to its logs. Workers on this machine inherit the environment anyway; workers
    on other nodes use what is set there.
    """
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    for name in [name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]:
        ENV_VARS_TO_PROPAGATE.discard(name)


def quieten_ray() -> None:
    """Makes Ray log errors only; has to be called before Ray is imported or started."""
    for name, value in _RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Advice on what to install for Ray's tables in a notebook, which are not shown.
    logging.getLogger("ray.widgets").setLevel(logging.ERROR)
    # Tune logs trials that did not end well as errors; the search reports them itself.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Capacity:
    """How many trials a cluster runs at a time.

    Attributes:
        trials: Their number; None if nodes may come and go, so that Tune decides.
        autoscales: Whether nodes are added when trials wait.
        awaited: The resources of a trial, if no node has room for one yet.
    """

    trials: int | None
    autoscales: bool = False
    awaited: str | None = None


def check_capacity(
    resources: ResourceSettings,
    source: Source,
    *,
    is_local_cluster: bool,
    one_node: bool = False,
) -> Capacity:
    """Returns how many trials the cluster runs at a time.

    Args:
        resources: The resources of a trial.
        source: The file with these settings.
        is_local_cluster: Whether the cluster was started here, so that no nodes are added.
        one_node: Whether a trial's workers have to be on the same node.

    Raises:
        SpecError: If it has no room for a trial, and no autoscaler.
    """
    import ray

    from lkd_tune.cluster.autoscaling import has_autoscaler

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = [workers_on(node, resources) for node in nodes]
    groups = workers if one_node else [sum(workers)]
    trials = sum(group // resources.workers for group in groups)
    autoscales = not is_local_cluster and has_autoscaler(
        wait_s=0.0 if trials else _AUTOSCALER_REPORT_S
    )
    asked = f"{resources.workers} worker(s) with {_in_words(resources.cpus, resources.gpus)} each"
    if trials > 0 or autoscales:
        return Capacity(
            trials=trials if is_local_cluster else None,
            autoscales=autoscales,
            awaited=None if trials else asked,
        )
    has = "; ".join(_in_words(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
    message = f"a trial asks for {asked}, the cluster's node(s) have {has}"
    if one_node and sum(workers) >= resources.workers:
        message += "; for a run on an object store all workers of a trial have to be on one node"
    raise SpecError(source.problem(("resources",), message))


def workers_on(node: dict[str, float], resources: ResourceSettings) -> int:
    """Returns how many workers fit on a node, by its total resources."""
    workers = node.get("CPU", 0) / resources.cpus
    if resources.gpus:
        # Each worker's share is on one GPU: two GPUs have room for four workers of 0.4, not five.
        workers = min(workers, int(node.get("GPU", 0)) * trials_on_a_gpu(resources.gpus))
    return int(workers + 1e-9)


@functools.cache  # one object for equal trials: Tune keeps that of each trial until the search ends
def trial_bundles(resources: ResourceSettings, strategy: str) -> PlacementGroupFactory:
    """Returns what a trial reserves of the cluster: one bundle for each worker."""
    from ray.tune import PlacementGroupFactory

    bundle = {"CPU": resources.cpus}
    if resources.gpus:
        bundle["GPU"] = resources.gpus
    return PlacementGroupFactory([bundle] * resources.workers, strategy=strategy)


def describe_cluster() -> dict[str, Any]:
    """Returns the number of the cluster's nodes, CPUs and GPUs."""
    import ray

    total = ray.cluster_resources()
    return {
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "cpus": total.get("CPU", 0),
        "gpus": total.get("GPU", 0),
    }


def dashboard_address() -> str | None:
    """Returns the address of Ray's dashboard, None if there is none.

    A cluster that is started for a search has none. The address is the one that the head reports:
    if the head listens on loopback only, it needs a tunnel.
    """
    from ray._private.worker import get_dashboard_url

    try:
        # `ray.init` returns it too, but calling that again would set the loggers of a Ray that the
        # user may have started.
        address = os.environ.get("RAY_OVERRIDE_DASHBOARD_URL") or get_dashboard_url()
    except Exception:  # a private function, needed for information only
        return None
    if not address or "://" in address:
        return address or None
    return f"http://{address}"


def describe_node() -> dict[str, Any]:
    """Returns the hardware of the node that this runs on."""
    from lkd_tune.runtime.host_memory import host_memory

    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "memory_gib": round(host_memory()[0] / 2**30, 1),
        "gpus": _gpu_names(),
    }


def _in_words(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU(s) and {gpus:g} GPU(s)"


def _gpu_names() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split("\n")[:-1]
