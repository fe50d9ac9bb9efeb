"""Whether the Ray that a driver uses is alive.

Ray itself tells a driver late or never: calls block for a minute after its control process (the
GCS) has died, and for good after its process on the driver's machine (the raylet) has.
"""

from __future__ import annotations

import contextlib
import socket
import time

import psutil

# Both are children of a driver that has started Ray; they never end before it.
_PROCESSES = {"gcs_server": "Ray's control process (gcs_server)", "raylet": "Ray's raylet process"}
_LOOK_EVERY_S = 0.5
# On a cluster: a control process that has a database may be started again within this time.
_UNREACHABLE_S, _CONNECT_TIMEOUT_S, _CONNECT_EVERY_S = 15.0, 3.0, 2.0


class RayLostError(RuntimeError):
    """Ray did not start, or has died."""


class RayHealth:
    """Watches the processes of a Ray that this process starts, or the addresses of a cluster.

    It is created before Ray starts, so that a death during the start is noticed.
    """

    _current: RayHealth | None = None

    def __init__(self) -> None:
        RayHealth._current = self
        self._processes: dict[str, psutil.Process] = {}
        self._addresses: dict[str, tuple[str, int]] = {}
        self._unreachable: dict[str, float] = {}
        self._starting = True
        self._looked = float("-inf")

    def started(self) -> None:
        """Has to be called when this process is connected to Ray."""
        self._find_processes()
        self._starting = False
        if not self._processes:
            self._addresses = _cluster_addresses()

    def end(self) -> None:
        """Has to be called before Ray is ended in order."""
        RayHealth._current = None

    @property
    def ended(self) -> bool:
        """Whether Ray was, or is being, ended in order."""
        return RayHealth._current is not self

    def problem(self) -> str | None:
        """Returns what has died, None if nothing has. Takes seconds only if that is unclear."""
        now = time.monotonic()
        if self._starting and now - self._looked > _LOOK_EVERY_S:
            self._looked = now
            self._find_processes()
        for name, process in self._processes.items():
            if not _is_alive(process):
                return f"{_PROCESSES[name]} has died"
        if self._addresses and now - self._looked > _CONNECT_EVERY_S:
            self._connect()
            self._looked = time.monotonic()
        for name, since in self._unreachable.items():
            seconds = time.monotonic() - since
            if seconds > _UNREACHABLE_S:
                host, port = self._addresses[name]
                return f"{name} ({host}:{port}) has not answered for {seconds:.0f} s"
        return None

    def settled_problem(self) -> str | None:
        """Returns what has died; waits while that is unclear. For the cause of an error."""
        while True:
            problem = self.problem()
            if problem is not None or not self._unreachable:
                return problem
            time.sleep(_LOOK_EVERY_S)

    def _find_processes(self) -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                name = child.name()
                if name in _PROCESSES and name not in self._processes and _is_alive(child):
                    self._processes[name] = child

    def _connect(self) -> None:
        for name, address in self._addresses.items():
            try:
                socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S).close()
                self._unreachable.pop(name, None)
            except OSError:
                self._unreachable.setdefault(name, time.monotonic())


def ray_problem() -> str | None:
    """Returns what has died of the Ray that is watched, None if nothing has."""
    health = RayHealth._current
    problem = None if health is None else health.problem()
    # Ended in order meanwhile, its processes are gone, too.
    return None if health is None or health.ended else problem


def raise_if_ray_is_lost() -> None:
    """Raises an error if Ray has died: calls of it would block, and all its trials fail.

    Raises:
        RayLostError: With what has died.
    """
    if (problem := ray_problem()) is not None:
        raise RayLostError(problem)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _cluster_addresses() -> dict[str, tuple[str, int]]:
    """Returns the addresses of the head's control process and of the raylet on this machine."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    addresses = {"the cluster's head": (host.strip("[]"), int(port))}
    own = context.get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == own:
            found = node["NodeManagerAddress"], int(node["NodeManagerPort"])
            addresses["the raylet on this machine"] = found
    return addresses
