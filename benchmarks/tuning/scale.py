"""The cost of the driver of a large search: 10, 100 and 1,000 trials at a time, 10,000 in all.

Number to look at: `utilisation`, the share of the slots' time in which a trial trains. A slot waits
while the single driver has not yet handled its trial's measurement or end, or has not drawn the
next trial. Study, sampler, scheduler, callbacks and files are the real ones. Trials are simulated
on their own clock: they take minutes, some fail, some lose their node; each decision of the driver
takes its real time. `limit` is the number of slots at which the driver would be busy all the time.
The first table has the time of one suggestion as the study grows, for Optuna's TPE and for ours.

    python benchmarks/tuning/scale.py [--slots 10 100 1000] [--trials 500 1500 8000] [--quick]
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from ray.tune.trainable.metadata import _TrainingRunMetadata

from lkd_tune.cluster.nodes import NodeRequirements, SearchNodes
from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.manifest import write_manifest
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import outcome_of
from lkd_tune.tuning.best_students import keep_best
from lkd_tune.tuning.execution.callback import SearchCallback
from lkd_tune.tuning.execution.retries import Retries
from lkd_tune.tuning.progress.view import View
from lkd_tune.tuning.samplers.build import build_sampler
from lkd_tune.tuning.schedulers.build import build_scheduler
from lkd_tune.tuning.stop import StopRequest
from lkd_tune.tuning.study.searcher import StudySearcher

TEACHER_LAYERS, STEPS = 6, 1000
# Of the seconds of a whole training, which are log-normal.
MEDIAN_S, SPREAD = 600.0, 0.4
# Shares of the trials: a loss is not finite; a node is lost more often than allowed.
FAILS, LOST = 0.03, 0.01


def load(trials: int) -> SearchSpace:
    """Returns the shipped space for N trials: a monotone map, all weights, 14 numbers."""
    return load_space(find_space("layer_map.yaml"), [f"search.trials={trials}", "confirm=null"])


def quality(spec: TrialSpec) -> float:
    """Returns a score that is best in one corner of the space, with a little noise."""
    weights = spec.losses
    away = sum(
        (np.log10(max(weight, 1e-3)) - best) ** 2
        for weight, best in [(weights.wr_pair.weight, 0.5), (weights.ltr_triple.weight, 1.0)]
    )
    noise = random.Random(spec.digest()).gauss(0, 0.02)
    return float(0.9 * np.exp(-away / 8) + noise)


@dataclass
class Trial:
    """A simulated trial with the attributes of Tune's own that the driver reads.

    Attributes:
        seconds: Of training, up to each evaluation.
        fate: `fails` or `lost` on the way to the last of them, or `complete`.
    """

    config: dict[str, Any]
    number: int
    evaluations: int
    seconds: list[float] = field(init=False)
    fate: str = field(init=False)
    at: int = 0
    last_result: dict[str, Any] = field(default_factory=dict)
    evaluated_params: dict[str, Any] = field(default_factory=dict)
    temporary_state: Any = field(default_factory=lambda: SimpleNamespace(ray_actor=None))
    run_metadata: _TrainingRunMetadata = field(default_factory=_TrainingRunMetadata)

    def __post_init__(self) -> None:
        rng = random.Random(self.number)
        whole = MEDIAN_S * np.exp(rng.gauss(0, SPREAD))
        shares = [2.0**-k for k in reversed(range(self.evaluations))]
        self.seconds = list(np.diff([0.0, *shares]) * whole)
        draw = rng.random()
        self.fate = "fails" if draw < FAILS else "lost" if draw < FAILS + LOST else "complete"
        if self.fate != "complete":
            self.seconds = self.seconds[: rng.randint(1, self.evaluations)]
        self.score = quality(TrialSpec.model_validate_json(self.config["spec"]))

    def next_result(self) -> dict[str, Any] | None:
        """Returns the trial's next result, None if its node is lost."""
        share = 2.0 ** -(self.evaluations - 1 - self.at)
        self.at += 1
        result: dict[str, Any] = {"wall_s": 1.0, "worker_s": 1.0, "error": None}
        if self.at == len(self.seconds) and self.fate != "complete":
            error = "DivergedError: the loss is nan"
            return None if self.fate == "lost" else result | {"state": "failed", "error": error}
        measurement = Measurement(
            step=round(share * STEPS),
            total_steps=STEPS,
            score=self.score * (1 - np.exp(-4 * share)),
            metrics={"accuracy": self.score, "f1": self.score},
            losses=dict.fromkeys(["wr_pair", "wr_triple", "ltr_pair", "ltr_triple", "total"], 0.1),
            parameters=10**7,
            train_s=1.0,
            samples_per_s=1.0,
            peak_memory_gib=1.0,
        )
        text = measurement.model_dump_json()
        state = "complete" if measurement.finished else "running"
        return result | {"state": state, "score": measurement.score, "measurement": text}


class Driver:
    """The driver's parts, called one event after the other as Ray Tune would."""

    def __init__(self, space: SearchSpace, run: RunFolder):
        settings = space.settings
        write_manifest(run, {"seconds": 0.0})
        self._run, self._top = run, settings.keep.top
        self._searcher = StudySearcher(
            space, run, teacher="none", teacher_layers=TEACHER_LAYERS, common={"run": str(run.path)}
        )
        self._scheduler = build_scheduler(settings, [])
        view = View(settings.search.trials, settings.task.metric, quiet=True)
        stop = StopRequest(None, 0.0, folder=run.path)
        nodes = SearchNodes(NodeRequirements(None, {}), settings.resources, view.note)
        retries = Retries(run, 1, living=set)
        self._callback = SearchCallback(run, view, stop, {}, retries, nodes, keep=self._keep)
        self._evaluations = settings.train.evaluations
        self._ids = itertools.count()
        self.writes, self.bytes = 0, 0
        self._count_writes()

    def next_trial(self) -> Trial | None:
        """Draws and starts a trial; None if there is none left."""
        number = next(self._ids)
        config = self._searcher.suggest(str(number))
        if not isinstance(config, dict):
            return None
        trial = Trial(config, number, self._evaluations)
        self._callback.on_trial_start(0, [], trial)
        return trial

    def continues(self, trial: Trial, result: dict[str, Any] | None) -> bool:
        """Handles a trial's result; returns whether the trial continues."""
        name = str(trial.number)
        if result is None:
            trial.error_file = None  # type: ignore[attr-defined]
            self._searcher.on_trial_complete(name, None, error=True)
            self._callback.on_trial_error(0, [], trial)
            return False
        trial.last_result = result
        if result["state"] == "running":
            self._searcher.on_trial_result(name, result)
            self._callback.on_trial_result(0, [], trial, result)
            if self._scheduler.on_trial_result(None, trial, result) == self._scheduler.CONTINUE:
                return True
        self._searcher.on_trial_complete(name, result)
        self._callback.on_trial_complete(0, [], trial)
        return False

    def _keep(self, name: str) -> None:
        keep_best(self._run, self._top, ended=name)

    def write_end(self, trial: Trial, result: dict[str, Any]) -> None:
        """Writes the files that the trial's own process would write at its end."""
        folder = self._run.trial(trial.config["name"])
        outcome = outcome_of(
            "complete" if result["state"] == "complete" else "failed", ResourceSettings(), 1.0
        )
        (folder / "outcome.json").write_text(outcome.model_dump_json())
        if outcome.state == "complete":
            (folder / "student").mkdir()
            (folder / "student" / "student.json").write_text(json.dumps({"score": result["score"]}))

    def _count_writes(self) -> None:
        backend = self._searcher._study._storage._backend  # type: ignore[attr-defined]
        append = backend.append_logs

        def counted(logs: list[dict[str, Any]]) -> None:
            self.writes += len(logs)
            append(logs)

        backend.append_logs = counted


def simulate(space: SearchSpace, slots: int, folder: Path) -> dict[str, float]:
    """Returns the figures of one search, by the columns of the table."""
    run = RunFolder(folder)
    driver = Driver(space, run)
    events: list[tuple[float, int, Trial | None]] = [(0.0, slot, None) for slot in range(slots)]
    order = itertools.count(slots)
    free_at, trained = 0.0, 0.0
    waits: list[float] = []
    spent: dict[str, float] = defaultdict(float)
    drawn, full_until, trained_by_then = 0, 0.0, 0.0
    total = space.settings.search.trials

    def timed(kind: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        value = function(*arguments)
        spent[kind] += time.perf_counter() - began
        return value

    while events:
        now, _, trial = heapq.heappop(events)
        begin = max(now, free_at)
        before = sum(spent.values())
        if trial is not None:
            result = trial.next_result()
            if result is not None and result["state"] != "running":
                driver.write_end(trial, result)
            kind = "results" if result and result["state"] == "running" else "ends"
            if not timed(kind, driver.continues, trial, result):
                trial = None
        if trial is None:
            trial = timed("draws", driver.next_trial)
            drawn += trial is not None
        free_at = begin + sum(spent.values()) - before
        waits.append(free_at - now)
        if trial is not None:
            seconds = trial.seconds[trial.at]
            heapq.heappush(events, (free_at + seconds, next(order), trial))
            trained += seconds
        if drawn == total and not full_until:
            # All slots are in use until the last trial is drawn; the time after it does not count.
            full_until = free_at
            trained_by_then = trained - sum(max(0.0, at - free_at) for at, _, _ in events)
    busy = sum(spent.values())
    size = run.study.stat().st_size
    return {
        "slots": slots,
        "trials": drawn,
        "utilisation": trained_by_then / (slots * full_until),
        "p50": float(np.percentile(waits, 50)),
        "p99": float(np.percentile(waits, 99)),
        "draw": spent["draws"] / drawn,
        "result": spent["results"] / drawn,
        "end": spent["ends"] / drawn,
        "limit": trained / busy,
        "writes": driver.writes / drawn,
        "writes_s": driver.writes / full_until,
        "kb": size / drawn / 1000,
        "mb": size / 1e6,
    }


def grown(space: SearchSpace, sizes: list[int]) -> Any:
    """Yields a study in memory whenever it has reached one of the sizes."""
    study = optuna.create_study(direction="maximize")
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    for size in sizes:
        while len(study.get_trials(deepcopy=False)) < size:
            trial = study.ask()
            score = quality(draw(space, trial))
            trial.report(score, STEPS // 4)
            if trial.number % 4:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, score)
        yield study


def draw(space: SearchSpace, trial: optuna.Trial) -> TrialSpec:
    """Returns what a trial draws."""
    return space.draw(trial, teacher="none", teacher_layers=TEACHER_LAYERS, seed=0)


def seconds_of(space: SearchSpace, study: optuna.Study, sampler: Any, draws: int) -> float:
    """Returns the median seconds of a draw; the study is the same afterwards."""
    taken = []
    for seed in range(draws):
        study.sampler = sampler(seed)
        began = time.perf_counter()
        trial = study.ask()
        draw(space, trial)
        taken.append(time.perf_counter() - began)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    study.sampler = optuna.samplers.RandomSampler(seed=len(study.get_trials(deepcopy=False)))
    return statistics.median(taken)


def suggestions(sizes: list[int], draws: int) -> None:
    """Prints a row for each size of the study."""
    space = load(sizes[-1])
    search = space.settings.search

    def whole(seed: int) -> Any:
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True
        )

    print("one suggestion, ms (study in memory)")
    print(f"{'trials':>8} {'over all trials':>16} {'over a bounded part':>20} {'ratio':>7}")
    for study in grown(space, sizes):
        size = len(study.get_trials(deepcopy=False))
        of_all = seconds_of(space, study, whole, draws)
        ours = seconds_of(space, study, lambda seed: build_sampler(search, seed), draws)
        print(
            f"{size:8} {1000 * of_all:16.0f} {1000 * ours:20.0f} {of_all / ours:7.1f}", flush=True
        )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--slots", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 1500, 8000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 3000, 10000])
    parser.add_argument("--quick", action="store_true", help="few trials, to check that it runs")
    parser.add_argument(
        "--folder", type=Path, help="folder for the runs. Default: a temporary folder"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.slots, arguments.trials, arguments.sizes = [4], [24], [20, 40]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    suggestions(arguments.sizes, draws=3 if arguments.quick else 7)
    print(f"\nmedian training {MEDIAN_S / 60:g} min; latency of a decision, seconds of a trial's")
    print(
        f"{'slots':>6} {'trials':>7} {'utilisation':>12} {'p50, s':>8} {'p99, s':>8} "
        f"{'draw, ms':>9} {'results':>8} {'end':>6} {'limit':>7} {'ops/trial':>10} "
        f"{'ops/s':>7} {'kB/trial':>9} {'MB':>6}"
    )
    for slots, trials in zip(arguments.slots, arguments.trials, strict=True):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
            found = simulate(load(trials), slots, Path(scratch) / "run")
        print(
            f"{slots:6} {found['trials']:7.0f} {found['utilisation']:12.1%} {found['p50']:8.3f} "
            f"{found['p99']:8.3f} {1000 * found['draw']:9.0f} {1000 * found['result']:8.0f} "
            f"{1000 * found['end']:6.0f} {found['limit']:7.0f} {found['writes']:10.1f} "
            f"{found['writes_s']:7.2f} {found['kb']:9.1f} {found['mb']:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
