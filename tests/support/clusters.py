"""A Ray cluster of several nodes on this machine, each started as a user would: `ray start`."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FakeMultiNodeProvider,
)

ROOT = Path(__file__).parents[2]
# Also where `ray` was not put on the path.
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
_PATIENCE_S = 240


class LocalCluster:
    """Nodes of one cluster with token authentication; a context that leaves no process behind.

    Attributes:
        env: What a driver needs in its environment, the token among it.
        address: For `ray.init` and `--address`.
        dashboard: Of the job server, `http://127.0.0.1:…`; None without one.

    Args:
        cpus: Of the head.
        dashboard: Whether it has a job server.
        grows_to: Nodes of one CPU that its autoscaler adds, one for each trial that waits.
        autoscaler: Its version, 1 or 2.
        **env: What such a node has in its environment.
    """

    def __init__(
        self,
        cpus: int = 1,
        *,
        dashboard: bool = False,
        grows_to: int = 0,
        autoscaler: int = 1,
        **env: str,
    ):
        self._folder = Path(tempfile.mkdtemp(prefix="lkd"))
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        port, board, metrics = _free_port(), _free_port(), _free_port()
        self.address = f"127.0.0.1:{port}"
        self.dashboard = f"http://127.0.0.1:{board}" if dashboard else None
        self._nodes: list[subprocess.Popen[bytes]] = []
        arguments = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}"]
        arguments += [
            f"--temp-dir={self._folder / 'ray'}",
            f"--ray-client-server-port={_free_port()}",
        ]
        arguments += [f"--include-dashboard={str(dashboard).lower()}"]
        arguments += [f"--dashboard-port={board}", f"--metrics-export-port={metrics}"]
        arguments += [f"--dashboard-agent-listen-port={_free_port()}"]
        if grows_to:
            config = self._folder / "autoscaling.json"
            config.write_text(json.dumps(_autoscaling(cpus, grows_to, self.address)))
            arguments += [f"--autoscaling-config={config}"]
            env |= {
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_FAKE_CLUSTER": "1",
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
                "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
                "RAY_enable_autoscaler_v2": str(autoscaler - 1),
            }
        try:
            self.head = self._start(arguments, cpus, env)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        for node in list(self._nodes):
            self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(
        self, cpus: int = 1, *, hidden: Path | None = None, **env: str
    ) -> subprocess.Popen[bytes]:
        """Starts one more node and waits until the cluster has it.

        Args:
            cpus: What it has.
            hidden: A folder that it does not see, but an empty disk in its place.
            **env: What it has in its environment.
        """
        arguments = [f"--address={self.address}", "--node-ip-address=127.0.0.1"]
        arguments += [f"--dashboard-agent-listen-port={_free_port()}"]
        return self._start(arguments, cpus, env, hidden)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Ends all processes of a node at once, as a lost machine does."""
        family = []
        if node.poll() is None:
            parent = psutil.Process(node.pid)
            family = [parent, *parent.children(recursive=True)]
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        node.wait()
        psutil.wait_procs(family, timeout=20)
        self._nodes.remove(node)

    def _start(
        self, arguments: list[str], cpus: int, env: dict[str, str], hidden: Path | None = None
    ) -> subprocess.Popen[bytes]:
        log = self._folder / f"node{len(self._nodes)}.log"
        command = [*RAY, "start", *arguments, f"--num-cpus={cpus}", "--block"]
        command += [f"--object-store-memory={80 * 2**20}", "--disable-usage-stats"]
        if hidden is not None:
            mount = f'mount -t tmpfs none {shlex.quote(str(hidden))} && exec "$@"'
            command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *command]
        with log.open("w") as file:
            node = subprocess.Popen(
                command, env=self.env | env, stdout=file, stderr=file, cwd=self._folder
            )
        self._nodes.append(node)
        deadline = time.monotonic() + _PATIENCE_S
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        if self.dashboard is not None and node is self._nodes[0]:
            self._wait_for_job_server()
        return node

    def _wait_for_job_server(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        header = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.dashboard}/api/jobs/", headers=header, timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.3)
        raise TimeoutError("the job server did not come up")


def _autoscaling(cpus: int, most: int, address: str) -> dict:
    """A config of Ray's provider of nodes that are processes on this machine."""
    head, worker = "ray.head.default", "ray.worker.cpu"
    store = {"object_store_memory": 80 * 2**20}
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray")
    return {
        "cluster_name": "grows",
        "max_workers": most,
        "upscaling_speed": most,
        "idle_timeout_minutes": 10,
        "provider": {
            "type": "external",  # the wheel lacks what "fake_multinode" reads
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "available_node_types": {
            head: {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0},
            worker: {
                "resources": {"CPU": 1, **store},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": head,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in (*lists, "worker_start_ray")},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
