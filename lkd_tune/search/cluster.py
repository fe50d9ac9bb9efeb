"""The Ray cluster that a search runs on: joining it, what it has, what a trial asks of it."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lkd_tune import __version__
from lkd_tune.spec.address import is_address
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.run import RunFolder
from lkd_tune.spec.settings import ResourceSettings
from lkd_tune.spec.source import Source
from lkd_tune.storage import StorageError, Store

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
# A node that is asked for a file has to load Ray's worker first, which takes seconds.
_NODE_ANSWERS_S = 60.0


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
    try:
        if address is None:
            # Ray asks for a token by itself from 2.59 on: who reaches its ports may run code.
            ray.init("local", include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
            _hide_token()
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


def check_room(resources: ResourceSettings, source: Source, *, one_node: bool = False) -> int:
    """Returns how many trials the cluster has room for at a time, at least 1.

    Args:
        resources: What a trial asks for.
        source: Where that was written.
        one_node: Whether a trial's workers have to be on the same node.

    Raises:
        SpecError: If it has not even room for one, and can't grow to have it.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    bundles = [_bundles_on(node, resources) for node in nodes]
    parts = bundles if one_node else [sum(bundles)]
    trials = sum(part // resources.workers for part in parts)
    if trials > 0 or _largest_cluster() is not None:
        return max(1, trials)
    has = "; ".join(_in_words(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)
    asked = _in_words(resources.cpus, resources.gpus)
    message = (
        f"a trial asks for {resources.workers} worker(s) with {asked} each, "
        f"the cluster's node(s) have {has}"
    )
    if one_node and sum(bundles) >= resources.workers:
        message += "; with a run on an object store a trial's workers have to be on one node"
    raise SpecError(source.problem(("resources",), message))


def check_nodes(run: RunFolder) -> None:
    """Asks each node of the cluster whether it can take part.

    Args:
        run: Its folder is made if need be; of a run with a home that is what nodes have to see.

    Raises:
        SpecError: If a node does not see the folder or can't write there, or has another version
            of this package or none.
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


def _look(mark: str) -> tuple[str, str | None]:
    """Returns the package's version here, and why the marked folder can't be used."""
    if is_address(mark):
        try:
            Store(mark.rpartition("/")[0]).check_writable()
        except StorageError as error:
            return __version__, str(error)
        return __version__, None
    try:
        if Path(mark).read_text("utf-8") != "driver":
            return __version__, "holds something else there"
        own = Path(f"{mark}-{uuid.uuid4().hex}")
        own.write_text("node", "utf-8")
        own.unlink()
    except FileNotFoundError:
        return __version__, "does not see it"
    except OSError as error:
        return __version__, f"can't write there ({error.strerror or error})"
    return __version__, None


def _unfit(answer: Any, run: RunFolder) -> str | None:
    import ray

    if answer is None:
        return f"did not answer within {_NODE_ANSWERS_S:g} s; is it overloaded, or its disk full?"
    try:
        version, trouble = ray.get(answer)
    except ray.exceptions.NodeDiedError:
        return None  # on its way out, as a spot node may be
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1][:200]
        return f"can't run lkd_tune ({last}); install lkd-tune=={__version__} on every node"
    if version != __version__:
        return f"has lkd-tune {version}, the driver {__version__}; install the same on every node"
    if trouble is not None and run.home is not None:
        return trouble
    if trouble is not None:
        return (
            f"{trouble}: {run.path}; give a folder that all nodes share, such as NFS, by --run-dir"
        )
    return None


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
