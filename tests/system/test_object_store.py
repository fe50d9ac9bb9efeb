"""Searches whose runs lie in an object store, as a user has them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from lkd_tune.config.read_space import load_space
from lkd_tune.storage.fetch import open_run, read_run, send_model
from lkd_tune.storage.object_store import Store
from lkd_tune.tuning.session import Session
from lkd_tune.tuning.tuner import run_search
from tests.support.clusters import LocalCluster
from tests.support.object_store import s3_server
from tests.support.studies import open_study
from tests.support.tiny import LABELS, make_space, make_teacher
from tests.system.driver import PATIENCE_S, family, living, wait_until, write_space


@pytest.fixture
def bucket():
    with s3_server() as address:
        yield address


def start(folder: Path, *args: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lkd_tune.cli", *map(str, args)]
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            command, cwd=folder, env=env or {**os.environ}, stdout=log, stderr=log, text=True
        )


def call(folder: Path, *args: object) -> str:
    """Calls lkd-tune to its good end; returns what it printed."""
    (folder / "log").unlink(missing_ok=True)
    driver = start(folder, *args)
    try:
        code = driver.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        driver.terminate()
        raise
    said = (folder / "log").read_text()
    assert code == 0, said
    return said


@pytest.mark.slow
def test_a_killed_search_continues_from_its_store_alone(bucket, folder):
    write_space(folder, trials=4, reduction_factor=2)
    send_model(make_teacher(folder / "teacher"), f"{bucket}/teacher")
    home = f"{bucket}/runs/first"
    driver = start(folder, "search", "--space", "space.yaml", "--run-dir", f"{bucket}/runs",
                   "--name", "first", "--set", f"teacher.model={bucket}/teacher",
                   "--set", "train.steps=1600",
                   "--set", "search.scheduler=none")  # fmt: skip
    store = Store(home)

    def another_is_on_its_way() -> bool:
        there = store.list("trials")
        return "trials/0000/outcome.json" in there and any(
            name.split("/")[1] > "0000" and name.endswith("/trial.json") for name in there
        )

    wait_until(another_is_on_its_way, driver)
    before = store.read("trials/0000/measurements.jsonl")
    trials = [process for process in family(driver) if "Distillation" in process.name()]
    driver.kill()
    driver.wait()
    wait_until(lambda: not living(trials))
    shutil.rmtree(os.environ["LKD_TUNE_CACHE"])

    said = call(folder, "search", "--resume", home)
    assert f"lkd-tune export {home} --to DIR" in said
    assert store.read("trials/0000/measurements.jsonl") == before
    run = read_run(home, students=True)
    records = run.read_trials()
    assert len(records) == 4
    assert {record.state for record in records} <= {"complete", "stopped"}
    study = open_study(run.study)
    assert sorted(t.state.name for t in study.trials if "name" in t.user_attrs) == sorted(
        {"complete": "COMPLETE", "stopped": "PRUNED"}[record.state] for record in records
    )
    there = store.list()
    assert not [name for name in there if "checkpoint-" in name or "/student/" in name]
    kept = {name.split("/")[1] for name in there if name.startswith("students/")}
    assert kept == {record.name for record in records if record.kept}
    assert {"leaderboard.csv", "leaderboard.json", "study.journal"} <= there.keys()

    best = next(line for line in call(folder, "best", home).splitlines() if "folder" in line)
    assert best.split()[1].startswith(f"{home}/students/")
    call(folder, "export", home, "--to", "out")
    assert (folder / "out" / "1" / "model.safetensors").exists()
    score = call(folder, "evaluate", best.split()[1]).split()[2]
    assert score == call(folder, "evaluate", folder / "out" / "1").split()[2]
    call(folder, "report", home)
    assert "report/report.html" in store.list()
    assert not [name for name in there if b"secret-of-someone" in (store.read(name) or b"")]


class ApartSession(Session):
    """A search whose trials see another disk than its driver."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.common["run"] = "/nowhere"


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["asha", "all to their end"])
def test_trials_on_nodes_that_share_no_folder(bucket, folder, monkeypatch, whole):
    monkeypatch.setattr("lkd_tune.tuning.tuner.Session", ApartSession)
    monkeypatch.setenv("LKD_TUNE_NODE_CACHE", str(folder / "node"))
    search, trained = {"trials": 2}, {}
    if whole:
        search = {"trials": 4, "scheduler": "none", "baseline": True}
        model = str(make_teacher(folder / "untrained"))
        trained = {"teacher": {"train": {"model": model, "epochs": 1}, "allow_chance_level": True}}
    make_space(folder, search=search, keep={"top": 1}, **trained)
    home = f"{bucket}/first"
    result = run_search(load_space(folder / "space.yaml"), open_run(home), quiet=True)
    run = result.run
    assert (result.trials, result.failures) == (search["trials"], {})
    assert result.best is not None
    assert (run.student(result.best) / "model.safetensors").exists()
    if whole:
        assert run.read_manifest()["teacher"]["model"] == f"{home}/teacher/model"
        assert run.read_trial(run.read_manifest()["baseline"]).state == "complete"
    assert all(record.measurements and record.size for record in run.read_trials())
    own = folder / "node" / "runs"
    assert [*own.rglob("latencies/*")]
    assert not [path for path in own.rglob("trials/*/*") if path.is_file()]
    there = Store(home).list()
    assert not [name for name in there if "checkpoint-" in name or "/student/" in name]
    assert {name.split("/")[1] for name in there if name.startswith("students/")} == {result.best}
    assert read_run(home).read_trials() == run.read_trials()


@pytest.mark.slow
def test_a_run_in_a_store_is_watched_taken_apart_and_begun_from(bucket, folder):
    losses = {**LABELS, "logits": {"weight": {"uniform": [0.5, 1.5]}, "alpha": 0.5}, "ltr_pair": 1}
    make_space(
        folder,
        losses=losses,
        student={"depth": 2},
        search={"trials": 2, "concurrency": None},
        keep={"top": 1},
    )
    runs = ["--run-dir", f"{bucket}/runs"]
    call(folder, "search", "--space", "space.yaml", *runs, "--name", "first")
    home = f"{bucket}/runs/first"
    shutil.rmtree(os.environ["LKD_TUNE_CACHE"])  # as on another machine

    watching = start(folder, "watch", home, "--port", 0, "--every", 1)
    log, address = folder / "log", re.compile(r"(http://\S+)  \(Ctrl-C")
    wait_until(lambda: address.search(log.read_text()) is not None, watching)
    page = address.search(log.read_text())[1]
    with urllib.request.urlopen(page) as answer:
        assert "<title>first" in answer.read().decode()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(PATIENCE_S) == 0, log.read_text()

    said = call(folder, "ablate", home, "--seeds", 2)
    assert "ltr_pair" in said
    store = Store(home)
    entries = json.loads(store.read("ablation.json"))["entries"]
    assert {entry["removed"] for entry in entries} == {None, "logits", "ltr_pair"}
    assert [name for name in store.list("trials") if "without" in name]
    shutil.rmtree(os.environ["LKD_TUNE_CACHE"])
    # Nothing is trained again: it is all in the store.
    assert call(folder, "ablate", home, "--seeds", 2).endswith(said[said.rindex("loss terms") :])
    call(folder, "report", home)
    assert "ltr_pair" in store.read("report/report.html").decode()

    second = ["--set", f"search.warm_start=[{home}]", "--set", "search.baseline=false"]
    said = call(folder, "search", "--space", "space.yaml", *runs, "--name", "second", *second)
    assert f"starts with {home} 000" in said
    origins = {record.origin for record in read_run(f"{bucket}/runs/second").read_trials()}
    assert {f"{home} 0000", f"{home} 0001"} <= origins
    said = (start_and_fail(folder, "search", "--space", "space.yaml", *runs, "--name", "third",
                           "--set", f"search.warm_start=[{bucket}/runs/nothing]"))  # fmt: skip
    assert "is not a run: it has no manifest.json" in said


def start_and_fail(folder: Path, *args: object) -> str:
    (folder / "log").unlink(missing_ok=True)
    assert start(folder, *args).wait(PATIENCE_S) == 2, (folder / "log").read_text()
    return (folder / "log").read_text()


@pytest.mark.slow
def test_a_search_is_submitted_to_a_cluster_and_mirrored_by_its_driver(bucket, folder):
    write_space(folder, trials=2, scheduler="none", concurrency=None)
    home = f"{bucket}/runs/first"
    with LocalCluster(cpus=2, dashboard=True) as cluster:
        server = ["--address", cluster.dashboard, "--cache", folder / "of-the-cluster"]

        def submit(*args: object) -> str:
            (folder / "log").unlink(missing_ok=True)
            code = start(folder, "submit", *args, *server, env=cluster.env).wait(PATIENCE_S)
            said = (folder / "log").read_text()
            assert code == 0, said
            return said

        submit("--space", "space.yaml", "--run-dir", f"{bucket}/runs", "--name", "first", "--wait")
        first = {record.name: record.spec for record in read_run(home).read_trials()}
        shutil.rmtree(folder / "of-the-cluster")  # the driver goes on elsewhere
        said = submit("--resume", home, "--set", "search.trials=3", "--wait")
        assert f"run: {home}" in said
    records = read_run(home).read_trials()
    assert {record.state for record in records} == {"complete"}
    again = {record.name: record.spec for record in records if record.name in first}
    assert again == first
    assert len([record for record in records if record.is_drawn]) == 3
    assert not [name for name in Store(home).list() if "checkpoint-" in name]
