"""The cost of a search's driver: time between trials, and memory over many trials.

Numbers to look at: the last two lines, the share of the wall time in which a slot was free but no
trial ran, and the growth of the driver's memory from the 100th trial to the last, relative to plain
Ray Tune with OptunaSearch on the same space. The trials sleep. All else is a real search, with
Optuna's study on disk, trial folders, rungs and leaderboard.

    python benchmarks/tuning/driver.py [--trials 100] [--seconds 2] [--many 1000]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ray import tune

from lkd_tune.cluster.ray import Capacity, connected
from lkd_tune.config.read_space import load_space
from lkd_tune.config.shipped import find_space
from lkd_tune.records.manifest import new_manifest, write_manifest
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import append_measurement
from lkd_tune.tuning.execution.trainable import DistillationTrainable
from lkd_tune.tuning.progress.view import View
from lkd_tune.tuning.session import Session
from lkd_tune.tuning.study.searcher import StudySearcher

WORKERS = 2
MANY_S = 0.02  # duration of each of many trials


class PlainSleeping(tune.Trainable):
    """A sleeping trial of plain Ray Tune: two measurements, and no files."""

    def step(self) -> dict[str, Any]:
        """Returns a measurement."""
        time.sleep(MANY_S / 2)
        return {"score": float(self.iteration), "done": self.iteration > 0}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called with the config of the actor's next trial."""
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Called at a trial's end."""


class Sleeping(DistillationTrainable):
    """A trial that sleeps instead of training, and writes the files of a trial."""

    def _next_result(self) -> dict[str, Any]:
        if self._trial_started is None:
            self._trial_started = time.monotonic()
            (self._folder.path / "began").write_text(str(time.time()), "utf-8")
        time.sleep(self._spec.train.warmup * 100 / 2)  # the number that carries the seconds
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


def resident_mib() -> float:
    """Returns this process's memory."""
    return psutil.Process().memory_info().rss / 2**20


def search(trials: int, seconds: float) -> tuple[float, list[float]]:
    """Returns wall time, and the driver's memory in MiB as each trial was drawn.

    The time is that from the first step of the first trial to the end of the last trial. Before it
    actors load torch, which is no work of the driver.
    """
    memory: list[float] = []

    class Watched(StudySearcher):
        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            memory.append(resident_mib())
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
        session = Session(space, run, Capacity(WORKERS), View.of_search(space.settings, quiet=True))
        searcher = Watched(space, run, teacher="none", teacher_layers=6, common=session.common)
        session.run_trials(searcher, None, trainable=Sleeping)
        done = [record for record in run.read_trials() if record.outcome]
        assert len(done) == trials, f"{len(done)} of {trials} trials ended"
        folders = [run.trial(record.name) for record in done]
        began = min(float((folder / "began").read_text("utf-8")) for folder in folders)
        wall = max((folder / "outcome.json").stat().st_mtime for folder in folders) - began
    return wall, memory


def plain_search(trials: int) -> list[float]:
    """Returns the driver's memory in MiB as plain Ray Tune draws each trial."""
    from ray.tune.search.optuna import OptunaSearch

    from benchmarks.tuning.plain_search import Drawing

    memory: list[float] = []

    class Watched(OptunaSearch):
        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            memory.append(resident_mib())
            return super().suggest(trial_id)

    space = load_space(find_space("layer_map.yaml"))
    with tempfile.TemporaryDirectory() as scratch, connected(None):
        tune.Tuner(
            tune.with_resources(PlainSleeping, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=Watched(Drawing(space, "none", 6), metric="score", mode="max"),
                num_samples=trials,
                max_concurrent_trials=WORKERS,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
    return memory


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a function that runs in a new process, with memory of its own."""
    # Forked: Ray's workers can't import classes of a script that was spawned.
    with multiprocessing.get_context("fork").Pool(1) as process:
        return process.apply(function, arguments)


def growth(memory: list[float]) -> float:
    """Returns the growth in MiB from the 100th trial to the last but one.

    The last trial is not always drawn.
    """
    return memory[-2] - memory[99]


def main() -> None:
    """Prints both figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a trial")
    parser.add_argument("--many", type=int, default=1000, help="trials for the memory")
    arguments = parser.parse_args()
    wall, _ = in_own_process(search, arguments.trials, arguments.seconds)
    ideal = arguments.trials * arguments.seconds / WORKERS
    print(
        f"{arguments.trials} trials of {arguments.seconds:g} s, {WORKERS} at a time: {wall:.1f} s"
    )
    few_wall, memory = in_own_process(search, arguments.many, MANY_S)
    print(f"{arguments.many} trials of {MANY_S:g} s: {few_wall:.0f} s")
    print(json.dumps({"MiB at trial": {i: round(memory[i]) for i in (0, 99, len(memory) - 2)}}))
    plain = growth(in_own_process(plain_search, arguments.many))
    print(f"overhead: {wall / ideal - 1:.1%} of the time the trials need")
    print(
        f"memory from trial 100 to trial {arguments.many}: {growth(memory):+.0f} MiB, "
        f"{growth(memory) / plain:.2f} of plain Ray Tune's {plain:+.0f} MiB"
    )


if __name__ == "__main__":
    main()
