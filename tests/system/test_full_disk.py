"""A disk that is full in earnest: the search says which, ends, and goes on when there is room."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lkd_tune.search.study import open_study
from lkd_tune.spec.run import RunFolder
from tests.small_disk import SmallDisk
from tests.system.driver import PATIENCE_S, what_became
from tests.tiny import LABELS, make_space, make_teacher


def call(disk: SmallDisk, folder: Path, *args: object) -> tuple[int, str]:
    """Calls lkd-tune where the disk is; returns how it ended and what it printed."""
    log = folder / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "lkd_tune.cli", *map(str, args)]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = disk.start(*command, cwd=folder, env=env, stdout=file, stderr=file)
        code = process.wait(PATIENCE_S)
    return code, log.read_text()


def make_large_space(folder: Path, trials: int) -> None:
    """Writes a space whose students' checkpoints take a megabyte or two."""
    make_space(
        folder,
        losses={**LABELS, "wr_pair": {"loguniform": [0.1, 10]}},
        student={"depth": {"int": [1, 2]}},
        search={"trials": trials, "concurrency": 1, "scheduler": "none", "min_free_gb": 0},
        keep={"top": 1},
    )
    make_teacher(folder / "teacher", hidden=128)


@pytest.mark.slow
def test_a_run_whose_disk_is_full_goes_on_when_there_is_room(small_disk, folder):
    make_large_space(folder, trials=3)
    path, run = small_disk.path / "run", RunFolder(small_disk.seen / "run")
    begin = ["search", "--space", folder / "space.yaml", "--run-dir", small_disk.path]
    code, said = call(small_disk, folder, *begin, "--name", "run")
    assert code == 1, said
    assert "Traceback" not in said
    *_, last = said.splitlines()
    assert last.startswith("stopped: no room for ")
    assert f"the disk of {path}/trials/" in last
    assert "GB free. Nothing is lost. Free some, then: lkd-tune search --resume" in last
    before = what_became(run)
    # No end was written, so none is final: the study waits for the trial, too.
    assert [state for _, state, _ in before.values()][-1] == "running"
    assert "failed" not in {state for _, state, _ in before.values()}
    assert {t.state.name for t in open_study(run.study).trials} <= {"COMPLETE", "RUNNING"}

    # As full as before: told again, and as resumable.
    code, said = call(small_disk, folder, "search", "--resume", path)
    assert code == 1, said
    assert "stopped: no room for " in said
    small_disk.grow(64 * 1024)
    code, said = call(small_disk, folder, "search", "--resume", path)
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
    code, said = call(small_disk, folder, *begin)
    assert code == 1, said
    assert "Traceback" not in said
    assert "of the teacher's targets in the cache (LKD_TUNE_CACHE may name another)" in said
    assert f"the disk of {small_disk.path}/cache/targets on " in said
    (small_disk.seen / "other").unlink()
    code, said = call(small_disk, folder, "search", "--resume", folder / "run")
    assert code == 0, said
    (record,) = RunFolder(folder / "run").read_trials()
    assert record.state == "complete"
