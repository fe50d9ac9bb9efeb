"""Kills a search at random moments, again and again, and compares it with one left alone.

Too long for the tests of every day: `make kills`. It kills the driver alone (SIGKILL), or every
second time its whole family of processes, at moments drawn with a seed from the time a session
takes, and in between reads what a user would: the leaderboard, and the kept students. A search that
ends before its moment was not killed: it is compared, and the next one begins.

    python -m tests.system.kill_often [--times 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from lkd_tune.models.loading import load_model
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard_files import read_leaderboard
from tests.support.studies import open_study
from tests.system.driver import family, living, start, wait_until, what_became, write_space

TRIALS = 16


def main() -> int:
    """Prints each kill, and at the end whether nothing was lost; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="lkd-tune-kills-") as scratch:
        folder = Path(scratch)
        write_space(folder, trials=TRIALS, reduction_factor=2)
        began = time.monotonic()
        _finish(folder, "alone")
        whole = time.monotonic() - began
        print(f"left alone: {TRIALS} trials in {whole:.0f} s", flush=True)
        expected = what_there_is(RunFolder(folder / "alone"))
        kills = in_trials = searches = 0
        while kills < arguments.times:
            searches += 1
            run, before = RunFolder(folder / f"run{searches}"), kills
            while kills < arguments.times:
                moment = rng.uniform(0.5, whole / 2)
                trials = _kill_once(folder, run, moment, everything=kills % 2 == 1)
                if trials is None:
                    break
                kills, in_trials = kills + 1, in_trials + (trials > 0)
            else:
                _finish(folder, run.path.name)
            _compare(run, expected, kills - before)
        print(f"{kills} kills, {in_trials} of them while a trial ran, in {searches} search(es)")
        return 0


def what_there_is(run: RunFolder) -> dict[str, Any]:
    """All of a finished run that must not depend on when it was killed."""
    board = read_leaderboard(run)
    kept = sorted(path.name for path in run.students.iterdir())
    return {
        "trials": what_became(run),
        "study": [
            (t.user_attrs["name"], t.state.name, t.values, t.params, t.intermediate_values)
            for t in open_study(run.study).trials
            if "name" in t.user_attrs
        ],
        "leaderboard": [(row.rank, row.name, row.state, row.score, row.kept) for row in board.rows],
        "students": {name: (run.student(name) / "model.safetensors").read_bytes() for name in kept},
        "left behind": [
            path.name
            for pattern in ("checkpoint-*", "student", ".*")
            for path in run.path.glob(f"trials/*/{pattern}")
        ],
    }


def _finish(folder: Path, what: str) -> None:
    """Has a search go on to its end."""
    if start(folder, what).wait() != 0:
        sys.exit((folder / f"{what}.log").read_text()[-3000:])


def _kill_once(folder: Path, run: RunFolder, moment: float, *, everything: bool) -> int | None:
    """Kills a session of a search; returns how many trials ran, None if it ended before."""
    driver = start(folder, run.path.name)
    deadline = time.monotonic() + moment
    while time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.05)
    processes = family(driver) if driver.poll() is None else []
    trials = [process for process in living(processes) if _is_trial(process)]
    driver.kill()
    code = driver.wait()
    if code == 0:
        return None
    if code != -signal.SIGKILL:
        sys.exit(f"ended with {code}:\n" + (folder / f"{run.path.name}.log").read_text()[-3000:])
    if everything:
        for process in living(processes):
            process.kill()
    wait_until(lambda: not living(trials))
    ended = 0
    if run.manifest.exists():
        board = read_leaderboard(run)
        ended = sum(row.state in ("complete", "stopped") for row in board.rows)
        if any(row.state in ("failed", "refused") for row in board.rows):
            sys.exit(f"a trial failed: {board.rows}")
        # A student that can be seen is whole.
        for student in sorted(run.students.glob("[0-9]*")):
            load_model(str(student))
    what = "all" if everything else "driver"
    print(f"killed {what} after {moment:.1f} s: {ended} trials ended", flush=True)
    return len(trials)


def _compare(run: RunFolder, expected: dict[str, Any], kills: int) -> None:
    """Ends with what differs from the search that was left alone."""
    found = what_there_is(run)
    for name, value in expected.items():
        if found[name] != value:
            sys.exit(f"{run.path.name}: other {name}:\n{found[name]}\nnot\n{value}")
    # None was run twice: of what was measured, no more was measured again than a kill may lose.
    lines = [
        f"{path.parent.name} {json.loads(line)['step']}"
        for path in run.path.glob("trials/*/measurements.jsonl")
        for line in path.read_text().splitlines()
    ]
    again = len(lines) - len({*lines})
    if again > kills:
        sys.exit(f"{run.path.name}: {again} measurements were made again after {kills} kills")
    print(f"{run.path.name}: as if left alone, {again} measurements made again", flush=True)


def _is_trial(process: psutil.Process) -> bool:
    try:
        return "Distillation" in process.name()
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main())
