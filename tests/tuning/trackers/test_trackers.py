"""Tests for all trackers: what is logged, across sessions and failures."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import wandb
from mlflow.tracking import MlflowClient

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.records.trial_folder import append_measurement
from lkd_tune.records.trial_record import LABELS_ALONE
from lkd_tune.tuning.trackers.base import tracked
from lkd_tune.tuning.trackers.build import TRACKERS, check_trackers
from lkd_tune.tuning.trackers.callback import Trackers
from tests.support.run_folder import HandMade, measurement
from tests.tuning.trackers.readers import Logged, read_mlflow, read_tensorboard, read_wandb

pytestmark = pytest.mark.slow

NAMES = tuple(TRACKERS)
STEPS = [10, 20, 30]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty database of MLflow's: making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture
def made(tmp_path, monkeypatch, database):
    shutil.copy(database, tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    yield HandMade(tmp_path / "first")
    wandb.teardown()  # it reads its variables once in a process


def logged(made: HandMade, name: str) -> dict[str, Logged]:
    """Returns what a tracker has, by trial."""
    if name == "mlflow":
        return read_mlflow(f"sqlite:///{made.run.path.parent}/mlflow.db", made.run.path.name)
    return {"tensorboard": read_tensorboard, "wandb": read_wandb}[name](made.run.path)


@contextmanager
def session(made: HandMade, *names: str, messages: list[str] | None = None):
    """A session of a search; yields the callback that Tune would call."""
    space = load_space(made.run.space, [f"trackers=[{', '.join(names)}]"])
    with Trackers(made.run, space, [].append if messages is None else messages.append) as trackers:
        yield trackers


def event(name: str) -> SimpleNamespace:
    """Returns the part of Tune's trial that the callback reads."""
    return SimpleNamespace(config={"name": name})


def measured(trackers: Trackers, made: HandMade, name: str, step: int, *, apart=False) -> None:
    """Has a trial measure something, on a node that may not see the run's folder."""
    point = measurement(step, 0.7)
    if not apart:
        append_measurement(made.run.trial(name), point)
    trackers.log_trial_result(0, event(name), {"measurement": point.model_dump_json()})


@pytest.mark.parametrize("name", NAMES)
def test_a_search_in_two_sessions_is_logged_once(made, name):
    with session(made, name) as trackers:
        made.add("0000", None, None)
        trackers.log_trial_start(event("0000"))
        for step in STEPS:
            measured(trackers, made, "0000", step)
        made.add("0000", None)
        trackers.log_trial_end(event("0000"))
        made.add("0001", None, None)
        trackers.log_trial_start(event("0001"))
        measured(trackers, made, "0001", 10)
    first = logged(made, name)
    assert {trial: each.steps() for trial, each in first.items()} == {"0000": STEPS, "0001": [10]}
    with session(made, name) as trackers:
        trackers.log_trial_start(event("0001"))
        measured(trackers, made, "0001", 10)  # Tune reports the last one again
        measured(trackers, made, "0001", 20, apart=True)
        measured(trackers, made, "0001", 30)
        made.add("0001", None)
        trackers.log_trial_end(event("0001"))
        made.add("0002", None, "failed", error="a loss is not finite")
        trackers.log_trial_end(event("0002"))
    second = logged(made, name)
    assert sorted(second) == ["0000", "0001", "0002"]
    assert second["0000"] == first["0000"]
    for trial in ("0000", "0001"):
        assert {len(second[trial].series[each]) for each in ("loss/total", "score", "lr")} == {3}
        assert second[trial].steps() == STEPS
    assert second["0002"].steps() == []
    states = {
        "tensorboard": ["ended", "ended", "ended"],
        "mlflow": ["FINISHED complete", "FINISHED complete", "FAILED failed"],
        "wandb": ["complete", "complete", "failed"],
    }
    assert [second[f"000{i}"].state for i in range(3)] == states[name]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_logged_is_what_was_measured(made, name):
    spec = made.add("0000", 0.72)
    with session(made, name):
        pass
    trial = logged(made, name)["0000"]
    assert trial.series["score"] == [(step, pytest.approx(0.72)) for step in STEPS]
    assert trial.series["dev/accuracy"][0] == (10, pytest.approx(0.86))
    assert trial.series["loss/wr_pair"][-1] == (30, pytest.approx(0.25))
    assert trial.series["samples_per_s"][1] == (20, pytest.approx(120.0))
    if name != "wandb":  # which has it in the summary
        assert trial.series["wall_s"] == [(30, 60.0)]
    assert float(trial.params["losses.wr_pair.weight"]) == spec.losses.wr_pair.weight
    assert str(trial.params["layer_map.word"]) == "-".join(map(str, spec.layer_map.word))
    assert int(trial.params["student.depth"]) == 3
    assert trial.params["role"] == "search"
    # A page of parameters is for what differs.
    if name == "tensorboard":
        maps = {"layer_map.word", "layer_map.layer"}
        assert {*trial.params} == {
            "trial", "role", "student.depth", "losses.wr_pair.weight", *maps
        }  # fmt: skip
    else:
        assert {"train.batch_size", "losses.wr_pair.distance"} <= {*trial.params}


@pytest.mark.parametrize("name", NAMES)
def test_what_an_earlier_session_has_not_logged_is_logged_later(made, name):
    made.add("0000", 0.5)
    made.add("0001", 0.3, "stopped", step=10)
    made.add("0002", 0.4, origin=LABELS_ALONE)
    with session(made, name):
        pass
    found = logged(made, name)
    assert {trial: each.steps() for trial, each in found.items()} == {
        "0000": STEPS, "0001": [10], "0002": STEPS
    }  # fmt: skip
    before = json.loads((made.run.path / "trackers.json").read_text())
    assert sorted(before[name])[:2] == ["0000", "0001"]
    with session(made, name):
        pass
    assert logged(made, name) == found


def test_a_comparison_that_takes_the_number_of_another_is_another(made):
    made.add("0001", 0.4, like=made.add("0000", 0.5), origin=LABELS_ALONE)
    with session(made, "tensorboard", "mlflow"):
        pass
    shutil.rmtree(made.run.trial("0001"))
    made.add("0001", 0.3, like=made._draw("other", 2), step=20, origin=LABELS_ALONE)
    with session(made, "tensorboard", "mlflow"):
        pass
    assert logged(made, "tensorboard")["0001"].steps() == [10, 20]
    client = MlflowClient(tracking_uri=f"sqlite:///{made.run.path.parent}/mlflow.db")
    runs = client.search_runs(["1"], "tags.role = 'baseline'")
    assert sorted(run.data.metrics["score"] for run in runs) == [0.3, 0.4]


def _until(reached, seconds=30.0):
    end = time.monotonic() + seconds
    while True:
        try:
            if reached():
                return
        except Exception:  # not there yet
            pass
        assert time.monotonic() < end
        time.sleep(0.05)


# MLflow's own server, which stops or starts when it reads a line.
SERVER = """
import threading
from mlflow.server import app
from werkzeug.serving import make_server

port = 0
while True:
    server = make_server("127.0.0.1", port, app, threaded=True)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("up", port, flush=True)
    input()
    server.shutdown()
    server.server_close()
    print("down", flush=True)
    input()
"""


@pytest.fixture
def server(made, tmp_path, monkeypatch):
    """The server's process; it has begun."""
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    command = [sys.executable, "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        port = process.stdout.readline().split()[-1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield process
        process.kill()


def toggle(server):
    server.stdin.write("\n")
    server.stdin.flush()
    return server.stdout.readline().split()[0]


def test_a_server_that_stops_and_restarts_has_everything(made, server, monkeypatch):
    monkeypatch.setattr("lkd_tune.tuning.trackers.feed._RETRY_S", 0.2)
    messages: list[str] = []
    made.add("0000", None, None)
    with session(made, "mlflow", messages=messages) as trackers:
        measured(trackers, made, "0000", 10)
        _until(lambda: logged(made, "mlflow")["0000"].steps() == [10])
        assert toggle(server) == "down"
        begin = time.monotonic()
        measured(trackers, made, "0000", 20)
        assert time.monotonic() - begin < 1  # the search waits for nobody
        _until(lambda: any("logging failed" in line for line in messages))
        assert toggle(server) == "up"
        measured(trackers, made, "0000", 30)
        _until(lambda: "mlflow: logging works again" in messages)
    assert logged(made, "mlflow")["0000"].steps() == STEPS
    assert len(messages) == 3


def test_a_server_that_never_answers_is_reported_and_ends_nothing(made, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    messages: list[str] = []
    made.add("0000", 0.5)
    with session(made, "mlflow", "wandb", "tensorboard", messages=messages):
        pass
    for name in ("mlflow", "wandb"):
        assert any(line.startswith(f"{name}: logging failed (") for line in messages)
        expected = (
            f"{name}: 1 trial is not logged completely; to log the rest, run `lkd-tune search"
        )
        assert any(expected in line for line in messages)
    assert "0" * 40 not in "".join(messages)
    assert logged(made, "tensorboard")["0000"].steps() == STEPS


def test_a_missing_package_is_reported_before_anything_starts(made, monkeypatch):
    monkeypatch.setattr("lkd_tune.config.settings.trackers.find_spec", lambda name: None)
    with pytest.raises(SpecError) as caught:
        check_trackers(load_space(made.run.space, ["trackers=[mlflow, wandb]"]))
    assert [str(problem) for problem in caught.value.problems] == [
        f"--set trackers trackers.{name}: needs a package that is not installed: "
        f"pip install 'lkd-tune[{name}]'"
        for name in ("mlflow", "wandb")
    ]


def test_nobody_is_asked_for_a_key(made, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(SpecError, match="nobody is logged in; call `wandb login`"):
        check_trackers(load_space(made.run.space, ["trackers=wandb"]))


def test_a_score_of_another_task_is_logged_at_the_end_only(made):
    spec = made.add("0000", 0.5)
    space = load_space(made.run.space)
    record = made.run.read_trial("0000")
    assert tracked(record, space).points[30]["score"] == 0.5
    other = spec.model_copy(update={"evaluate_on": {"task": "sst2"}})
    fine_tuned = dataclasses.replace(record, spec=other, fine_tuned=measurement(7, 0.9))
    trial = tracked(fine_tuned, space)
    assert all("score" not in point for point in trial.points.values())
    assert trial.results["score"] == 0.9
