"""The Ray cluster that a search runs on: joining it, what it has, what a trial asks of it."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.settings import ResourceSettings
from lkd_tune.spec.source import Source

# Read by Ray when it is imported or started: no reporters, loggers or handlers beside our own,
# and workers that stay in the driver's working directory.
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",  # a process that can't leave its group holds resources
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}
# Trials go through files; Ray's own object store stays nearly empty.
_STORE_BYTES = 128 * 2**20


@contextmanager
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
    try:
        if address is None:
            ray.init("local", include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError) as error:
        if address is None:
            raise
        message = f"{address} can't be joined: {' '.join(str(error).split())[:300]}"
        raise SpecError(Problem("", "--address", message)) from None
    try:
        yield address is None
    finally:
        ray.shutdown()


def quieten_ray() -> None:
    """Has Ray tell errors only; to be called before it is imported or started."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    # It tells as an error which trials did not end well, which the search does by itself.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)


def check_room(resources: ResourceSettings, source: Source) -> int:
    """Returns how many trials the cluster has room for at a time, at least 1.

    Raises:
        SpecError: If it has not even room for one, and can't grow to have it.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    bundles = sum(_bundles_on(node, resources) for node in nodes)
    if bundles >= resources.workers or _largest_cluster() is not None:
        return max(1, bundles // resources.workers)
    has = "; ".join(_in_words(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
    asked = _in_words(resources.cpus, resources.gpus)
    message = (
        f"a trial asks for {resources.workers} worker(s) with {asked} each, "
        f"the cluster's node(s) have {has}"
    )
    raise SpecError(source.problem(("resources",), message))


def largest_node_cpus() -> float:
    """Returns the CPUs of the node that has most."""
    import ray

    return max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])


def describe_cluster() -> dict[str, Any]:
    """Returns the cluster's nodes and what they have in all."""
    import ray

    total = ray.cluster_resources()
    return {
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "cpus": total.get("CPU", 0),
        "gpus": total.get("GPU", 0),
    }


def describe_node() -> dict[str, Any]:
    """Returns the hardware of the node that this runs on."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpu_names(),
    }


def _bundles_on(node: dict[str, float], resources: ResourceSettings) -> int:
    room = node.get("CPU", 0) / resources.cpus
    if resources.gpus:
        room = min(room, node.get("GPU", 0) / resources.gpus)
    return int(room + 1e-9)


def _largest_cluster() -> dict[str, int] | None:
    """Returns what the cluster can grow to, None if it does not grow."""
    from ray._private.state import state

    try:
        return state.get_max_resources_from_cluster_config()
    except Exception:  # private, and only makes the check milder
        return None


def _in_words(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU(s) and {gpus:g} GPU(s)"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split("\n")[:-1]
