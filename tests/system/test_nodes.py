"""Searches over several nodes: used, added, lost, and trials whose workers span them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import read_measurements
from tests.support.clusters import LocalCluster
from tests.support.tiny import LABELS, make_space
from tests.system.driver import wait_until


def search(cluster: LocalCluster, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lkd_tune.cli", "search", "--address", cluster.address]
    command += ["--space", str(folder / "space.yaml"), "--run-dir", str(folder), "--name", "run"]
    with (folder / "search.log").open("w") as log:
        return subprocess.Popen(
            [*command, *more],
            cwd=folder,
            env={**cluster.env, "LKD_TUNE_CACHE": str(folder / "cache")},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def nodes_of(run: RunFolder, name: str) -> list[list[str]]:
    """The nodes of a trial's workers, each time it was started."""
    path = run.trial(name) / "workers.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [[worker["node"] for worker in json.loads(line)["workers"]] for line in lines]


def nodes_used(run: RunFolder) -> set[str]:
    names = [path.parent.name for path in run.path.glob("trials/*/workers.jsonl")]
    return {node for name in names for start in nodes_of(run, name) for node in start}


@pytest.mark.slow
def test_nodes_are_used_added_and_lost(tmp_path):
    make_space(
        tmp_path,
        losses=LABELS,
        train={"steps": 2000, "evaluations": 6, "lr": {"loguniform": [1e-4, 1e-2]}},
        # More trials than there will be: how fast nodes come and trials end is not to matter.
        # The loss of a node is none of a trial's failures, of which none is allowed here.
        search={"trials": 500, "concurrency": None, "scheduler": "none", "max_failures": 0},
        student={"depth": 1},
        layer_map="skip",
    )
    run = RunFolder(tmp_path / "run")
    with LocalCluster() as cluster:
        second = cluster.add_node()
        driver = search(cluster, tmp_path)
        wait_until(lambda: len(nodes_used(run)) == 2, driver)
        cluster.add_node()
        wait_until(lambda: len(nodes_used(run)) == 3, driver)
        moving = _with_checkpoint_on(run, second.pid)
        wait_until(lambda: bool(moving()), driver)
        name = moving()[0]
        before = [m.step for m in read_measurements(run.trial(name))]
        cluster.kill(second)
        wait_until(lambda: run.read_trial(name).outcome is not None, driver)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(200) == 130, (tmp_path / "search.log").read_text()

    assert {record.state for record in run.read_trials()} == {"complete", "running"}
    assert run.read_trial(name).state == "complete"
    # It went on elsewhere, from where its checkpoint left it: no step was measured again but
    # the one that the kill may have fallen on.
    starts = nodes_of(run, name)
    assert len(starts) == 2
    assert starts[0] != starts[1]
    lines = (run.trial(name) / "measurements.jsonl").read_text().splitlines()
    assert len(lines) <= 7
    assert [m.step for m in read_measurements(run.trial(name))][: len(before)] == before


def _with_checkpoint_on(run: RunFolder, pid: int):
    """Returns a function that names the running trials of a node that have a checkpoint."""

    def names() -> list[str]:
        below = _below(pid)
        found = []
        for path in run.path.glob("trials/*/checkpoint-*"):
            if {worker["pid"] for worker in _workers(run, path.parent.name)} & below:
                found.append(path.parent.name)
        return found

    return names


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_trial_s_workers_span_nodes_that_each_store_the_targets_once(tmp_path, stage):
    make_space(
        tmp_path,
        resources={"workers": 2, "cpus": 1, "zero_stage": stage},
        search={"trials": 2, "scheduler": "none"},
        student={"depth": 2},
    )
    run = RunFolder(tmp_path / "run")
    caches = [tmp_path / "first", tmp_path / "second"]
    with LocalCluster(cpus=0) as cluster:
        for cache in caches:
            cluster.add_node(LKD_TUNE_NODE_CACHE=str(cache))
        driver = search(cluster, tmp_path)
        assert driver.wait(200) == 0, (tmp_path / "search.log").read_text()

    records = run.read_trials()
    assert [record.state for record in records] == ["complete"] * 2
    for record in records:
        (workers,) = nodes_of(run, record.name)
        assert len(set(workers)) == 2
        assert (run.student(record.name) / "model.safetensors").exists()
    for cache in caches:
        (facts,) = cache.rglob("facts.json")
        first = run.trial("0000") / "measurements.jsonl"
        assert facts.stat().st_mtime < first.stat().st_mtime
    assert not list((tmp_path / "cache").rglob("facts.json"))


@pytest.mark.slow
def test_a_trial_whose_worker_s_node_is_lost_continues_with_others(tmp_path):
    make_space(
        tmp_path,
        losses=LABELS,
        resources={"workers": 2, "cpus": 1, "zero_stage": 1},
        train={"steps": 2000, "evaluations": 6},
        search={"trials": 1, "scheduler": "none", "max_failures": 0},
        student={"depth": 1},
        layer_map="skip",
    )
    run = RunFolder(tmp_path / "run")
    with LocalCluster(cpus=0) as cluster:
        nodes = [cluster.add_node() for _ in range(3)]
        driver = search(cluster, tmp_path)
        wait_until(lambda: bool([*run.path.glob("trials/0000/checkpoint-*")]), driver)
        pids = [worker["pid"] for worker in _workers(run, "0000")]
        # Not that of rank 0: it has to see that another is gone, and say so.
        (second,) = [node for node in nodes if pids[1] in _below(node.pid)]
        cluster.kill(second)
        assert driver.wait(300) == 0, (tmp_path / "search.log").read_text()
    assert run.read_trial("0000").state == "complete"
    first, again = nodes_of(run, "0000")
    assert first != again


def _workers(run: RunFolder, name: str) -> list[dict]:
    text = (run.trial(name) / "workers.jsonl").read_text()
    return json.loads(text.splitlines()[-1])["workers"]


def _below(pid: int) -> set[int]:
    return {process.pid for process in psutil.Process(pid).children(recursive=True)}
