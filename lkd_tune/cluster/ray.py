"""The Ray cluster that a search runs on: joining it, what it has, what a trial asks of it."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.training import ResourceSettings, trials_on_a_gpu
from lkd_tune.config.source import Source
from lkd_tune.runtime.hardware import cpu_name

# Read by Ray when it is imported or started: no reporters, loggers or handlers beside our own, no
# state of Tune's (the run folder has it all), and workers that stay in the driver's directory.
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",  # a process that can't leave its group holds resources
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}
# Trials go through files; Ray's own object store stays nearly empty.
_STORE_BYTES = 128 * 2**20
# It reports every five seconds, and on a head that has just come up some time after that.
_AUTOSCALER_TELLS_S = 30.0


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Joins a cluster, or starts one on this machine, and leaves or ends it afterwards.

    Gives whether it was started here, so that it has no room beside what it has now.

    Args:
        address: The cluster's; none: that of RAY_ADDRESS (which a Ray job finds set), else
            this machine. A cluster that this process has joined already is used and left alone.

    Raises:
        SpecError: If there is no cluster at the address.
    """
    quieten_ray()
    import ray

    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        with _on_loopback():
            # Ray asks for a token by itself from 2.59 on: who reaches its ports may run code.
            ray.init("local", include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
            _hide_token()
            try:
                yield True
            finally:
                ray.shutdown()
        return
    try:
        ray.init(address, **quiet)
    except (ConnectionError, ValueError) as error:
        message = f"{address} can't be joined: {' '.join(str(error).split())[:300]}"
        raise SpecError(Problem("", "--address", message)) from None
    try:
        yield False
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Has a Ray that is started meanwhile listen on loopback alone.

    For that its processes have to take 127.0.0.1 for this machine's address. Ray puts another in
    its place, but where it has no clusters of several machines, as on macOS and Windows: by this
    switch.
    """
    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        os.environ.pop(name)
        if before[0] is not None:
            os.environ[name] = before[0]
        ray_constants.ENABLE_RAY_CLUSTER = before[1]


def _hide_token() -> None:
    """Has the token that Ray made for this user be readable by this user alone."""
    with contextlib.suppress(OSError):
        token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        if token.stat().st_uid == os.getuid() and token.stat().st_mode & 0o077:
            token.chmod(0o600)


def withhold_credentials() -> None:
    """Has Tune leave the driver's AWS credentials out of its actors' runtime environments.

    Ray writes those into its logs. Workers on this machine inherit the environment anyway, those
    on other nodes have what is set there.
    """
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    for name in [name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]:
        ENV_VARS_TO_PROPAGATE.discard(name)


def quieten_ray() -> None:
    """Has Ray tell errors only; to be called before it is imported or started."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    # It tells as an error which trials did not end well, which the search does by itself.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Room:
    """How many trials a cluster runs at a time.

    Attributes:
        trials: So many; None: its nodes come and go, and Tune places what there is room for.
        grows: Whether nodes are added to it when trials wait.
        awaited: What a trial asks for, if no node has room for it yet.
    """

    trials: int | None
    grows: bool = False
    awaited: str | None = None


def check_room(
    resources: ResourceSettings, source: Source, *, alone: bool, one_node: bool = False
) -> Room:
    """Returns what room the cluster has for trials.

    Args:
        resources: What a trial asks for.
        source: Where that was written.
        alone: Whether the cluster was started here, so that it is what it is.
        one_node: Whether a trial's workers have to be on the same node.

    Raises:
        SpecError: If it has not even room for one, and does not grow.
    """
    import ray

    from lkd_tune.cluster.autoscaling import can_grow

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    bundles = [bundles_on(node, resources) for node in nodes]
    parts = bundles if one_node else [sum(bundles)]
    trials = sum(part // resources.workers for part in parts)
    grows = not alone and can_grow(patience_s=0.0 if trials else _AUTOSCALER_TELLS_S)
    asked = f"{resources.workers} worker(s) with {_in_words(resources.cpus, resources.gpus)} each"
    if trials > 0 or grows:
        return Room(trials if alone else None, grows, None if trials else asked)
    has = "; ".join(_in_words(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
    message = f"a trial asks for {asked}, the cluster's node(s) have {has}"
    if one_node and sum(bundles) >= resources.workers:
        message += "; with a run on an object store a trial's workers have to be on one node"
    raise SpecError(source.problem(("resources",), message))


def describe_cluster() -> dict[str, Any]:
    """Returns the cluster's nodes and what they have in all."""
    import ray

    total = ray.cluster_resources()
    return {
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "cpus": total.get("CPU", 0),
        "gpus": total.get("GPU", 0),
    }


def dashboard_address() -> str | None:
    """Returns the address of Ray's dashboard, None if this Ray has none.

    One that is started for a search has none; that of a cluster is as its head tells it, so
    on a head that listens on loopback alone it needs a tunnel.
    """
    from ray._private.worker import get_dashboard_url

    try:
        # What `ray.init` tells as well, but to be called again it sets the loggers of a Ray that
        # may be the user's own.
        address = os.environ.get("RAY_OVERRIDE_DASHBOARD_URL") or get_dashboard_url()
    except Exception:  # private, and only to be looked at
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


def bundles_on(node: dict[str, float], resources: ResourceSettings) -> int:
    """Returns how many workers have room on a node, by what it has in all."""
    room = node.get("CPU", 0) / resources.cpus
    if resources.gpus:
        # A share is one of a single GPU: two GPUs have room for four trials of 0.4, not for five.
        room = min(room, int(node.get("GPU", 0)) * trials_on_a_gpu(resources.gpus))
    return int(room + 1e-9)


def _in_words(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU(s) and {gpus:g} GPU(s)"


def _gpu_names() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split("\n")[:-1]
