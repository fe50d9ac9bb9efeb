"""What the driver of a search costs: time between trials, and memory over many of them.

Look at the last two lines: the share of the wall time in which no trial ran though one could have,
and how the driver's memory grew from its 100th trial to its last. The trials sleep; all else is a
search as it is, with Optuna's study on disk, trial folders, rungs and leaderboard.

    python benchmarks/driver.py [--trials 100] [--seconds 2] [--many 1000]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from lkd_tune.search.cluster import Room, connected
from lkd_tune.search.manifest import new_manifest, write_manifest
from lkd_tune.search.session import Session
from lkd_tune.search.study import StudySearcher
from lkd_tune.search.trainable import DistillationTrainable
from lkd_tune.spaces import find_space
from lkd_tune.spec.measurement import Measurement
from lkd_tune.spec.run import RunFolder, append_measurement
from lkd_tune.spec.space import load_space

WORKERS = 2


class Sleeping(DistillationTrainable):
    """A trial that sleeps in place of training, and writes what a trial writes."""

    def _next_result(self) -> dict[str, Any]:
        if self._began is None:
            self._began = time.monotonic()
            (self._folder.path / "began").write_text(str(time.time()), "utf-8")
        time.sleep(self._spec.train.warmup * 100 / 2)  # the space's one number to tell it by
        done = self._folder.read_checkpoint() is not None
        measurement = Measurement(
            step=2 if done else 1,
            total_steps=2,
            score=self._spec.losses.wr_pair.weight,
            metrics={},
            losses={"total": 0.0},
            parameters=1,
            train_s=0.0,
            samples_per_s=0.0,
            peak_memory_gib=0.0,
        )
        append_measurement(self._folder.path, measurement)
        if done:
            outcome = self._outcome("complete")
            self._folder.write_outcome(outcome)
            return self._result(measurement, "complete", outcome)
        with self._folder.new_checkpoint(1, *self._spent):
            pass
        return self._result(measurement, "running")


def search(trials: int, seconds: float) -> tuple[float, list[float]]:
    """Returns the seconds from the first trial's first step to the last one's end, and the driver's
    memory in MiB as each trial was drawn.

    What is before, actors that load torch, is the start of a trial and not the driver's work."""
    memory: list[float] = []

    class Watched(StudySearcher):
        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            memory.append(psutil.Process().memory_info().rss / 2**20)
            return super().suggest(trial_id)

    space = load_space(
        find_space("layer_map.yaml"),
        [
            f"search.trials={trials}",
            f"train.warmup={seconds / 100}",
            "confirm=null",
        ],
    )
    with tempfile.TemporaryDirectory() as scratch, connected(None):
        run = RunFolder(Path(scratch))
        write_manifest(run, new_manifest(space.settings, scratch))
        session = Session(space, run, Room(WORKERS), quiet=True)
        searcher = Watched(space, run, teacher="none", teacher_layers=6, common=session.common)
        session.fit(searcher, None, trainable=Sleeping)
        done = [record for record in run.read_trials() if record.outcome]
        assert len(done) == trials, f"{len(done)} of {trials} trials ended"
        folders = [run.trial(record.name) for record in done]
        began = min(float((folder / "began").read_text("utf-8")) for folder in folders)
        wall = max((folder / "outcome.json").stat().st_mtime for folder in folders) - began
    return wall, memory


def main() -> None:
    """Prints both figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a trial")
    parser.add_argument("--many", type=int, default=1000, help="trials for the memory")
    arguments = parser.parse_args()
    wall, _ = search(arguments.trials, arguments.seconds)
    ideal = arguments.trials * arguments.seconds / WORKERS
    print(
        f"{arguments.trials} trials of {arguments.seconds:g} s, {WORKERS} at a time: {wall:.1f} s"
    )
    few_wall, memory = search(arguments.many, 0.02)
    print(f"{arguments.many} trials of 0.02 s: {few_wall:.0f} s")
    print(json.dumps({"MiB at trial": {i: round(memory[i]) for i in (0, 99, len(memory) - 2)}}))
    print(f"overhead: {wall / ideal - 1:.1%} of the time the trials need")
    growth = memory[-2] - memory[99]
    print(f"memory from trial 100 to trial {arguments.many}: {growth:+.0f} MiB")


if __name__ == "__main__":
    main()
