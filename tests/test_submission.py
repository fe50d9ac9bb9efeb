"""Searches sent to a real head node, with its job server and its token."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lkd_tune.spec.run import RunFolder
from tests.clusters import LocalCluster
from tests.system.driver import wait_until
from tests.tiny import LABELS, make_space


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(cpus=2, dashboard=True) as cluster:
        yield cluster


@pytest.fixture
def lkd_tune(cluster, tmp_path):
    """Runs a command as a user of the cluster would, and checks how it exits."""

    def run(*arguments: str, code: int = 0, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lkd_tune.cli", *arguments],
            env={**cluster.env, "RAY_API_SERVER_ADDRESS": cluster.dashboard, **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def on_a_terminal(cluster: LocalCluster, *arguments: str) -> str:
    """Returns what a command shows where there is a terminal."""
    ours, its = pty.openpty()
    env = {**cluster.env, "RAY_API_SERVER_ADDRESS": cluster.dashboard, "COLUMNS": "120"}
    command = [sys.executable, "-m", "lkd_tune.cli", *arguments]
    process = subprocess.Popen(command, env=env | {"TERM": "xterm"}, stdout=its, stderr=its)
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone with the last who had it
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait(200) == 0, shown.decode()
    return shown.decode()


def name_of(said: str) -> str:
    found = re.search(r"^job: (\S+)\s*$", said, re.MULTILINE)
    assert found, said
    return found[1]


@pytest.mark.slow
def test_a_search_ships_its_files_is_followed_stopped_and_resumed(tmp_path, lkd_tune, cluster):
    home, shared = tmp_path / "home", tmp_path / "shared"
    make_space(
        home,
        losses=LABELS,
        train={"steps": 1600, "evaluations": 6, "lr": {"loguniform": [1e-4, 1e-2]}},
        search={"trials": 3, "scheduler": "none"},
        student={"depth": 1},
        layer_map="skip",
    )
    where = ["--space", str(home / "space.yaml"), "--run-dir", str(shared), "--name", "first"]
    said = lkd_tune("submit", *where, "--ship", "--cache", str(tmp_path / "cache"))
    job, run = name_of(said), RunFolder(shared / "first")
    assert str(run.path) in said
    wait_until(lambda: bool([*run.path.glob("trials/*/checkpoint-*")]))
    assert "RUNNING" in lkd_tune("jobs")
    stopped = lkd_tune("stop", job)
    assert f"lkd-tune submit --resume {run.path}" in stopped
    assert "interrupted; nothing is lost" in lkd_tune("logs", job)
    assert "STOPPED" in lkd_tune("jobs")
    # What was shipped lies in the run; the user's own files are not asked for again.
    (home / "data").rename(home / "elsewhere")
    assert str(run.path / "shipped") in run.space.read_text()
    said = on_a_terminal(
        cluster, "submit", "--resume", str(run.path), "--set", "search.trials=2", "--wait",
        "--cache", str(tmp_path / "cache"),
    )  # fmt: skip
    assert "trial 0001 complete" in said
    assert f"Ray's dashboard: {cluster.dashboard}\n" in said
    assert run.read_manifest()["dashboard"] is None  # it is over
    assert re.search(r"trials \d/2: .* 1 running|trials \d/2: .* 2 running", said)
    assert re.search(r"0001 +(starting|\d+/1600)", said)
    assert "\x1e" not in said
    log = lkd_tune("logs", name_of(said))
    assert "trial 0001 complete" in log
    assert "\x1e" not in log
    assert {record.state for record in run.read_trials()} == {"complete"}
    board = json.loads(run.leaderboard_json.read_text())
    assert board["rows"]
    for file in run.path.rglob("*"):
        if file.is_file():
            assert cluster.env["RAY_AUTH_TOKEN"].encode() not in file.read_bytes(), file


def test_what_can_t_run_is_told(tmp_path, lkd_tune):
    make_space(tmp_path)
    where = ["--space", str(tmp_path / "space.yaml"), "--name", "run"]
    shared = ["--run-dir", str(tmp_path / "shared")]
    said = lkd_tune("submit", *where, *shared, "--address", "http://127.0.0.1:9", code=2)
    assert "http://127.0.0.1:9 does not answer" in said
    said = lkd_tune("submit", *where, *shared, "--address", "head:8265", code=2)
    assert "looks like http://HEAD:8265" in said
    said = lkd_tune("submit", *where, *shared, code=2, RAY_AUTH_TOKEN="0" * 64)
    assert "does not take this token" in said
    assert "ray get-auth-token" in said
    said = lkd_tune("submit", *where, "--run-dir", "runs", code=2)
    assert "has to be absolute" in said
    said = lkd_tune("submit", *where, *shared, "--set", "train.lr=-1", code=2)
    assert "train.lr" in said
    assert "has no such search" in lkd_tune("logs", "nothing", code=2)


def test_the_driver_s_own_refusal_comes_back(tmp_path, lkd_tune):
    make_space(tmp_path)
    where = ["--space", str(tmp_path / "space.yaml"), "--name", "run"]
    said = lkd_tune("submit", *where, "--run-dir", "/proc/shared", code=2)
    assert "/proc/shared/run: can't be written by the driver" in said
    said = lkd_tune("submit", "--resume", str(tmp_path / "nothing"), code=2)
    assert "is no run folder" in said


@pytest.mark.slow
def test_a_run_goes_on_after_its_driver_s_node_was_lost(tmp_path):
    make_space(
        tmp_path,
        losses=LABELS,
        train={"steps": 1000, "evaluations": 6, "lr": {"loguniform": [1e-4, 1e-2]}},
        search={"trials": 2, "scheduler": "none"},
        student={"depth": 1},
        layer_map="skip",
    )
    run = RunFolder(tmp_path / "shared" / "first")
    command = [sys.executable, "-m", "lkd_tune.cli", "submit", "--wait"]
    command += ["--space", str(tmp_path / "space.yaml"), "--name", "first"]
    command += ["--run-dir", str(tmp_path / "shared"), "--cache", str(tmp_path / "cache")]
    for attempt in range(2):
        with LocalCluster(cpus=1, dashboard=True) as cluster:
            env = {**cluster.env, "RAY_API_SERVER_ADDRESS": str(cluster.dashboard)}
            client = subprocess.Popen(
                command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True
            )
            if attempt == 0:
                wait_until(lambda: bool([*run.path.glob("trials/*/checkpoint-*")]), client)
                (checkpoint,) = run.path.glob("trials/*/checkpoint-*")
                cluster.kill(cluster.head)
            said, _ = client.communicate(timeout=240)
            assert client.returncode == (0 if attempt else 2), said
    assert {record.state for record in run.read_trials()} == {"complete"}
    # The trial that was lost went on from its checkpoint: at most one step was measured again.
    lines = (checkpoint.parent / "measurements.jsonl").read_text().splitlines()
    assert len(lines) <= 7


class OtherRay(BaseHTTPRequestHandler):
    """A job server of another Ray, as far as a client asks it."""

    def do_GET(self):
        answer = {"version": "4", "ray_version": "2.59.0", "ray_commit": "", "session_name": ""}
        body = json.dumps([] if self.path.startswith("/api/jobs") else answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_another_ray_is_told_with_the_fix():
    with HTTPServer(("127.0.0.1", 0), OtherRay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "-m", "lkd_tune.cli", "jobs", "--address", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()
    assert done.returncode == 2
    assert "the cluster runs Ray 2.59.0" in done.stderr
    assert "pip install 'ray[default]==2.59.0'" in done.stderr
