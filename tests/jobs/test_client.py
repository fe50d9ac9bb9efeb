"""Searches sent to a real head node, with its job server and its token."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import socket
import subprocess
import sys

import pytest
import yaml

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.jobs import client
from lkd_tune.jobs.client import JobServer
from lkd_tune.records.manifest import new_manifest, write_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.lock import locked
from lkd_tune.tuning.tuner import write_space
from tests.support.clusters import LocalCluster
from tests.support.job_server import job_server
from tests.support.tiny import LABELS, at_chance, make_space, make_teacher
from tests.system.driver import wait_until
from tests.tuning.test_multi_task import hub_folder

# Within so many seconds it is told that a search can't run: about ten, on a machine that does
# little else. What waits for something that does not come takes longer.
SECONDS = 100


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
            timeout=SECONDS if code == 2 else 300,
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
    assert f"Ray's dashboard: {cluster.dashboard}\r\n" in said
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


def test_what_can_t_run_is_reported(tmp_path, lkd_tune):
    make_space(tmp_path)
    where = ["--space", str(tmp_path / "space.yaml"), "--name", "run"]
    shared = ["--run-dir", str(tmp_path / "shared")]
    said = lkd_tune("submit", *where, *shared, "--address", "http://127.0.0.1:9", code=2)
    assert "http://127.0.0.1:9 does not answer" in said
    said = lkd_tune("submit", *where, *shared, "--address", "head:8265", code=2)
    assert "such as http://HEAD:8265" in said
    said = lkd_tune("submit", *where, *shared, code=2, RAY_AUTH_TOKEN="0" * 64)
    assert "refuses this token" in said
    assert "ray get-auth-token" in said
    said = lkd_tune("submit", *where, "--run-dir", "runs", code=2)
    assert "is not absolute" in said
    said = lkd_tune("submit", *where, "--run-dir", "s3://bucket", "--ship", code=2)
    assert "--ship: files can't be uploaded" in said
    said = lkd_tune("submit", *where, *shared, "--set", "train.lr=-1", code=2)
    assert "train.lr" in said
    assert "has no such search" in lkd_tune("logs", "nothing", code=2)


def begun(folder, *overrides):
    """Returns a run as its driver left it that was killed before the first trial."""
    run, space = RunFolder(folder), load_space(folder.parents[1] / "space.yaml", overrides)
    write_space(run, space)
    write_manifest(run, new_manifest(space.settings, str(folder)))
    return run


def test_the_driver_s_own_refusal_comes_back(tmp_path, lkd_tune):
    """Each of these is found late, after the driver has joined the cluster."""
    make_space(tmp_path)
    where = ["--space", str(tmp_path / "space.yaml"), "--run-dir", str(tmp_path / "shared")]
    too_many = ["--set", "resources.cpus=64", "--name", "new"]
    said = lkd_tune("submit", *where, *too_many, code=2)
    assert "a trial asks for 1 worker(s) with 64 CPU" in said
    assert "INFO" not in said  # Ray's own lines about what it uploads
    run = begun(tmp_path / "shared" / "run")
    other = ["--name", "run", "--set", "search.trials=9", "--set", "train.lr=1"]
    said = lkd_tune("submit", *where, *other, code=2)
    assert "--set search.trials: is 9 here, 6 in the run; --allow-changed applies it" in said
    assert "--set train.lr: is 1 here, 0.001 in the run, and can't change in a resumed run" in said
    assert not [*run.path.glob("trials/*")]


@pytest.mark.slow
def test_more_refusals_of_the_driver(tmp_path, lkd_tune):
    make_space(tmp_path)
    where = ["--space", str(tmp_path / "space.yaml"), "--run-dir", str(tmp_path / "shared")]
    nowhere = ["--space", str(tmp_path / "space.yaml"), "--run-dir", "/proc/shared"]
    nothing = ["--resume", str(tmp_path / "nothing")]
    warm = ["--name", "new", "--set", "search.warm_start=[/runs/none]"]
    mlflow = ["--name", "new", "--set", "trackers=mlflow"]
    for arguments, told in (
        (nowhere, ": can't be written by the driver"),
        (nothing, "is not a run folder"),
        ([*where, *warm], "/runs/none is not a run folder"),
        ([*where, *mlflow], "the address of a tracking server"),
    ):
        assert told in lkd_tune("submit", *arguments, code=2)
    run = begun(tmp_path / "shared" / "run")
    with locked(run):
        said = lkd_tune("submit", *where, "--name", "run", code=2)
    assert "is being searched by another process" in said
    # What was taken along the first time is what the run goes on with.
    lkd_tune("submit", *where, "--name", "new", "--ship", "--set", "search.trials=1", "--wait")
    data = tmp_path / "data" / "dev.csv"
    before = data.read_bytes()
    data.write_bytes(before + b"more,1\r\n")
    shipped = [*where, "--name", "new", "--ship", "--set", "search.trials=1"]
    assert "dev.csv differs from the file that" in lkd_tune("submit", *shipped, code=2)
    # Where nothing else differs, what may change is taken over.
    data.write_bytes(before)
    more = [*where, "--name", "new", "--ship", "--set", "search.trials=2", "--allow-changed"]
    said = lkd_tune("submit", *more, "--wait", "--quiet")
    assert "trial 0001 complete" not in said
    states = {
        record.name: record.state for record in RunFolder(run.path.with_name("new")).read_trials()
    }
    assert states == {"0000": "complete", "0001": "complete"}


def test_a_node_that_does_not_see_the_run_is_reported(tmp_path, cluster, lkd_tune):
    """The driver's own folder by a name that means another folder in each process."""
    make_space(tmp_path)
    where = ["--space", str(tmp_path / "space.yaml"), "--run-dir", "/proc/self/cwd/shared"]
    said = lkd_tune("search", *where, "--address", cluster.address, "--name", "run", code=2)
    assert re.search("node .*: does not see it: /proc/self/cwd/shared/run; set --run-dir", said)
    assert not (tmp_path / "shared" / "run" / "manifest.json").exists()


@pytest.mark.slow
def test_several_tasks_are_submitted(tmp_path, lkd_tune):
    space = {
        "task": "rte",
        "teacher": at_chance(make_teacher(tmp_path / "teacher")),
        "student": {"depth": 1},
        "layer_map": "skip",
        "losses": LABELS,
        "train": {"batch_size": 16, "steps": 4, "lr": {"loguniform": [1e-4, 1e-2]}},
        "search": {"trials": 1, "recipes": [], "baseline": False},
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    data = hub_folder(tmp_path / "glue")
    said = lkd_tune(
        "submit", "--space", str(tmp_path / "space.yaml"), "--run-dir", str(tmp_path / "shared"),
        "--name", "both", "--task", "cola,mrpc", "--set", f"task.data={data}", "--ship", "--wait",
        "--set", "task.max_length=32",
    )  # fmt: skip
    assert "average" in said
    runs = tmp_path / "shared" / "both"
    for task in ("cola", "mrpc"):
        run = RunFolder(runs / task)
        assert run.read_trial("0000").state == "complete"
        assert load_space(run.space).settings.teacher.model == str(runs / "shipped" / "0-teacher")
    assert (runs / "tasks.json").exists()


@pytest.mark.slow
def test_a_run_continues_after_its_driver_s_node_was_lost(tmp_path):
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
                command,
                env=env,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if attempt == 0:
                wait_until(lambda: bool([*run.path.glob("trials/*/checkpoint-*")]), client)
                (checkpoint,) = run.path.glob("trials/*/checkpoint-*")
                cluster.kill(cluster.head)
            said, _ = client.communicate(timeout=240)
            assert client.returncode == (0 if attempt else 2), said
            assert ("resume with: lkd-tune submit --resume" in said) == (attempt == 0), said
    assert {record.state for record in run.read_trials()} == {"complete"}
    # The trial that was lost went on from its checkpoint: at most one step was measured again.
    lines = (checkpoint.parent / "measurements.jsonl").read_text().splitlines()
    assert len(lines) <= 7


def test_a_head_without_an_agent_is_reported_with_the_fix():
    with (
        pytest.raises(SpecError, match="ray start --head --dashboard-agent-listen-port=PORT"),
        client._ErrorsExplained("http://head:8265"),
    ):
        raise RuntimeError("Request failed with status code 500: No available agent to submit job")


def test_another_ray_is_reported_with_the_fix():
    with job_server("2.59.0") as server:
        command = [sys.executable, "-m", "lkd_tune.cli", "jobs", "--address", server.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the cluster runs Ray 2.59.0" in done.stderr
    assert "pip install 'ray[default]==2.59.0'" in done.stderr


@pytest.fixture
def _own_variables(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")  # put back by pytest


@pytest.mark.usefixtures("_own_variables")
def test_a_connection_that_is_lost_for_a_moment_is_taken_up_again(monkeypatch):
    with job_server() as server:
        connected = JobServer(server.address)
        server.dropped = 2
        assert connected.jobs() == []
        assert server.dropped == 0
        server.dropped = 10
        monkeypatch.setattr(client, "_RETRY_S", 0.5)
        with pytest.raises(SpecError, match="does not answer; check that the head node"):
            connected.jobs()


@pytest.mark.usefixtures("_own_variables")
def test_a_port_that_accepts_and_never_answers_is_reported(monkeypatch):
    monkeypatch.setattr(client, "_READ_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SpecError, match="does not answer"):
            JobServer(address)
