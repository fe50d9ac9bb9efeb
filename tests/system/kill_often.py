"""Kills a search at random moments, again and again, and compares it with one left alone.

Too long for the tests of every day: `make kills`. It kills the driver alone (SIGKILL), or every
second time its whole family of processes, at moments drawn with a seed from the time a session
takes, and in between reads what a user would: the leaderboard, and the kept students.

    python -m tests.system.kill_often [--times 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from lkd_tune.distill.models import load_model
from lkd_tune.results.leaderboard import read_leaderboard
from lkd_tune.search.study import open_study
from lkd_tune.spec.run import RunFolder
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
        if start(folder, "alone").wait() != 0:
            print((folder / "alone.log").read_text())
            return 1
        whole = time.monotonic() - began
        print(f"left alone: {TRIALS} trials in {whole:.0f} s", flush=True)
        expected = what_became(RunFolder(folder / "alone"))
        run = RunFolder(folder / "run")
        for i in range(arguments.times):
            _kill_once(folder, run, rng, whole, everything=i % 2 == 1)
        if start(folder).wait() != 0:
            print((folder / "run.log").read_text()[-3000:])
            return 1
        found = what_became(run)
        told = [t for t in open_study(run.study).trials if "name" in t.user_attrs]
        same = found == expected
        print(f"{len(found)} trials, {len(told)} in the study, as if left alone: {same}")
        return 0 if same and len(told) == len(found) else 1


def _kill_once(
    folder: Path, run: RunFolder, rng: random.Random, whole: float, *, everything: bool
) -> None:
    driver = start(folder)
    moment = rng.uniform(0.5, whole / 2)
    deadline = time.monotonic() + moment
    while time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.05)
    processes = family(driver) if driver.poll() is None else []
    driver.kill()
    driver.wait()
    if everything:
        for process in living(processes):
            process.kill()
    trials = [process for process in processes if _is_trial(process)]
    wait_until(lambda: not living(trials))
    ended = 0
    if run.manifest.exists():
        board = read_leaderboard(run)
        ended = sum(board.count(state) for state in ("complete", "stopped", "failed"))
        # A student that can be seen is whole.
        for student in sorted(run.students.glob("[0-9]*")):
            load_model(str(student))
    what = "all" if everything else "driver"
    print(f"killed {what} after {moment:.1f} s: {ended} trials ended", flush=True)


def _is_trial(process: object) -> bool:
    try:
        return "Distillation" in process.name()  # type: ignore[attr-defined]
    except Exception:  # gone meanwhile
        return False


if __name__ == "__main__":
    sys.exit(main())
