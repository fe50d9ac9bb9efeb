"""A Ray cluster of several nodes on this machine, each started as a user would: `ray start`."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests

ROOT = Path(__file__).parents[1]
# Also where `ray` was not put on the path.
RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
_PATIENCE_S = 240


class LocalCluster:
    """Nodes of one cluster with token authentication; a context that leaves no process behind.

    Attributes:
        env: What a driver needs in its environment, the token among it.
        address: For `ray.init` and `--address`.
        dashboard: Of the job server, `http://127.0.0.1:…`; None without one.
    """

    def __init__(self, cpus: int = 1, *, dashboard: bool = False):
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
        try:
            self.head = self._start(arguments, cpus, {})
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        for node in list(self._nodes):
            self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(self, cpus: int = 1, **env: str) -> subprocess.Popen[bytes]:
        """Starts one more node and waits until the cluster has it."""
        arguments = [f"--address={self.address}", "--node-ip-address=127.0.0.1"]
        arguments += [f"--dashboard-agent-listen-port={_free_port()}"]
        return self._start(arguments, cpus, env)

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

    def _start(self, arguments: list[str], cpus: int, env: dict[str, str]) -> subprocess.Popen:
        log = self._folder / f"node{len(self._nodes)}.log"
        command = [*RAY, "start", *arguments, f"--num-cpus={cpus}", "--block"]
        command += [f"--object-store-memory={80 * 2**20}", "--disable-usage-stats"]
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
