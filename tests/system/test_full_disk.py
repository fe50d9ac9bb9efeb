"""A disk that is full in earnest: the search says which, ends, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lkd_tune.records.run import RunFolder
from tests.support.clusters import LocalCluster
from tests.support.studies import open_study
from tests.support.tiny import LABELS, make_space, make_teacher
from tests.system.driver import PATIENCE_S, what_became


def call(folder: Path, *args: object, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Calls lkd-tune; returns how it ended and what it printed."""
    command = [sys.executable, "-m", "lkd_tune.cli", *map(str, args)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**(env or os.environ), "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout


def make_large_space(folder: Path, trials: int) -> None:
    """Writes a space whose students' checkpoints take a megabyte or two."""
    make_space(
        folder,
        losses={**LABELS, "wr_pair": {"loguniform": [0.1, 10]}},
        student={"depth": {"int": [1, 2]}},
        search={"trials": trials, "scheduler": "none", "min_free_gb": 0},
        keep={"top": 1},
    )
    make_teacher(folder / "teacher", hidden=128)


@pytest.mark.slow
def test_a_run_whose_disk_is_full_continues_when_there_is_room(small_disk, folder):
    make_large_space(folder, trials=3)
    run = RunFolder(small_disk.path / "run")
    begin = ["search", "--space", folder / "space.yaml", "--run-dir", small_disk.path]
    code, said = call(folder, *begin, "--name", "run")
    assert code == 1, said
    assert "Traceback" not in said
    *_, last = said.splitlines()
    assert last.startswith("stopped: no disk space for ")
    assert f"the disk of {run.path}/trials/" in last
    assert "GB free. Nothing is lost. Free some disk space, then: lkd-tune search --resume" in last
    before = what_became(run)
    # No end was written, so none is final: the study waits for the trial, too.
    assert [state for _, state, _ in before.values()][-1] == "running"
    assert "failed" not in {state for _, state, _ in before.values()}
    assert {t.state.name for t in open_study(run.study).trials} <= {"COMPLETE", "RUNNING"}

    # As full as before: told again, and as resumable.
    code, said = call(folder, "search", "--resume", run.path)
    assert code == 1, said
    assert "stopped: no disk space for " in said
    small_disk.grow(64 * 1024)
    code, said = call(folder, "search", "--resume", run.path)
    assert code == 0, said
    after = what_became(run)
    assert [state for _, state, _ in after.values()] == ["complete"] * 3
    assert all(after[name][0] == spec for name, (spec, _, _) in before.items())
    for name, (_, _, scores) in before.items():
        assert after[name][2][: len(scores)] == scores
    told = [t.state.name for t in open_study(run.study).trials if "name" in t.user_attrs]
    assert told == ["COMPLETE"] * 3
    assert not [*run.path.glob("trials/*/full_disk")]


@pytest.mark.slow
def test_a_cache_whose_disk_is_full_is_named_before_the_first_trial(
    small_disk, folder, monkeypatch
):
    make_large_space(folder, trials=1)
    monkeypatch.setenv("LKD_TUNE_CACHE", str(small_disk.path / "cache"))
    small_disk.fill(free_kb=48)
    begin = ["search", "--space", folder / "space.yaml", "--run-dir", folder, "--name", "run"]
    code, said = call(folder, *begin)
    assert code == 1, said
    assert "Traceback" not in said
    assert (
        "of the teacher's targets in the cache (set LKD_TUNE_CACHE to use another folder)" in said
    )
    assert f"the disk of {small_disk.path}/cache/targets on " in said
    small_disk.empty()
    code, said = call(folder, "search", "--resume", folder / "run")
    assert code == 0, said
    (record,) = RunFolder(folder / "run").read_trials()
    assert record.state == "complete"


@pytest.mark.slow
def test_the_disk_of_a_worker_on_another_node_is_named(small_disk, folder):
    make_space(
        folder,
        resources={"workers": 2, "cpus": 1, "zero_stage": 1},
        search={"trials": 1, "scheduler": "none", "max_failures": 0},
        student={"depth": 2},
    )
    begin = ["search", "--space", folder / "space.yaml", "--run-dir", folder, "--name", "run"]
    run = RunFolder(folder / "run")
    (small_disk.path / "cache").mkdir()
    small_disk.fill(free_kb=48)
    with LocalCluster(cpus=0) as cluster:
        cluster.add_node(LKD_TUNE_NODE_CACHE=str(folder / "first"))
        cluster.add_node(LKD_TUNE_NODE_CACHE=str(small_disk.path / "cache"))
        code, said = call(folder, *begin, "--address", cluster.address, env=cluster.env)
        assert code == 1, said
        assert "Traceback" not in said
        assert f"the disk of {small_disk.path}/cache/" in said
        assert all(record.outcome is None for record in run.read_trials())
        small_disk.empty()
        again = ["search", "--resume", run.path, "--address", cluster.address]
        code, said = call(folder, *again, env=cluster.env)
    assert code == 0, said
    (record,) = run.read_trials()
    assert record.state == "complete"
