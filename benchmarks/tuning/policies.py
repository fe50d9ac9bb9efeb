"""The value of ways to draw and stop trials, simulated on trials that were really run.

Numbers to look at: the true score of the student that a search returns after a number of seconds,
averaged over simulated searches. A model of the learning curves, a Gaussian process for each
evaluation, is fitted to the trials of RUN. Simulated searches with the real samplers and rungs take
their scores from it, with noise, on two workers. The first lines say how well the model predicts
trials that it was not fitted to.

    lkd-tune search --space layer_map.yaml --name chance --set search.trials=170 \\
        --set search.sampler=random --set search.scheduler=none --set confirm=null \\
        --set search.recipes=[] --set search.baseline=false
    python benchmarks/tuning/policies.py runs/chance [more runs of that space] [--searches 24]
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import recipe_starts
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import TrialRecord
from lkd_tune.tuning.samplers.build import build_tpe
from lkd_tune.tuning.schedulers.asha import SuccessiveHalving
from lkd_tune.tuning.study.ask_tell import report, tell

_WORKERS = 2
# Time between two trials of a reused actor.
_START_S = 0.7
_SECONDS = (30, 60, 90, 180)


def main() -> None:
    """Prints a row for each way to draw and stop trials."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--space", default="layer_map.yaml")
    parser.add_argument("--searches", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0.005, help="standard deviation of a score")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    space = load_space(find_space(arguments.space), [])
    records = [
        record
        for folder in arguments.runs
        for record in RunFolder(folder).read_trials()
        if record.is_drawn and record.measurements
    ]
    if unseen := {*space.depths()} - _by_depth(records).keys():
        depths = ", ".join(map(str, sorted(unseen)))
        parser.error(
            f"no trial of depth {depths} in these runs was trained to its end (see --help)"
        )
    curves = Curves(records)
    # The model knows the terms of the space only, so the starts are those that the space has.
    starts = recipe_starts(space, curves.layers, space.settings.search.recipes)
    points = [start.params for start in starts if start.recipe is None]
    print(
        "| trials are drawn | stopped | " + " | ".join(f"{s} s" for s in _SECONDS) + " | trials |"
    )
    print("| --- | --- |" + " --- |" * (len(_SECONDS) + 1))
    for (drawn, build), factor in itertools.product(_samplers().items(), (None, 3, 2)):
        found, counts = [], []
        for seed in range(arguments.searches):
            simulation = Simulation(curves, space, build, seed, arguments.noise)
            found.append(simulation.run(SuccessiveHalving(factor) if factor else None, points))
            counts.append(simulation.begun)
        stopped = f"not the best 1/{factor}" if factor else "none"
        cells = " | ".join(
            f"{statistics.mean(scores):.4f} ± {standard_error(scores):.4f}"
            for scores in zip(*found, strict=True)
        )
        print(f"| {drawn} | {stopped} | {cells} | {statistics.mean(counts):.0f} |", flush=True)


def standard_error(scores: Sequence[float]) -> float:
    """Returns the standard error of the mean, 0 for a single score."""
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0


def _samplers() -> dict[str, Callable[[int], BaseSampler]]:
    return {
        "at random": lambda seed: RandomSampler(seed=seed),
        "by TPE after 10": lambda seed: build_tpe(seed, startup=10),
        "by TPE after 4": lambda seed: build_tpe(seed, startup=4),
    }


class Curves:
    """Learning curves as a function of a trial's spec.

    Args:
        records: Trials of one space; stopped trials have the first part of a curve.
    """

    def __init__(self, records: Sequence[TrialRecord]):
        self.layers = max(max(entries(record.spec)) for record in records)
        self.halvings = sorted(
            {m.halvings for record in records for m in record.measurements}, reverse=True
        )
        self._models: dict[int, Any] = {}
        self._known: dict[str, dict[int, float]] = {}
        for halvings in self.halvings:
            pairs = [
                (self._features(record.spec), m.score)
                for record in records
                for m in record.measurements
                if m.halvings == halvings
            ]
            points, scores = map(np.array, zip(*pairs, strict=True))
            kernel = ConstantKernel() * Matern(
                np.full(points.shape[1], 3.0), (0.3, 1e3), nu=2.5
            ) + WhiteKernel(0.05)
            process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
            model = make_pipeline(StandardScaler(), process)
            guesses = cross_val_predict(model, points, scores, cv=5)
            explained = 1 - np.var(scores - guesses) / np.var(scores)
            print(
                f"1/{2**halvings} of the steps: {len(scores)} trials, the model explains "
                f"{explained:.1%} of the variance of those it was not fitted to"
            )
            self._models[halvings] = model.fit(points, scores)
        self._seconds = {
            depth: statistics.median(r.measurements[-1].train_s for r in own)
            for depth, own in _by_depth(records).items()
        }

    def of(self, spec: TrialSpec) -> dict[int, float]:
        """Returns the expected scores of a trial by halvings of its steps."""
        key = spec.digest()
        if key not in self._known:
            point = self._features(spec)[None]
            self._known[key] = {h: float(m.predict(point)[0]) for h, m in self._models.items()}
        return self._known[key]

    def seconds(self, spec: TrialSpec) -> float:
        """Returns the seconds of a complete trial."""
        return self._seconds[spec.student.depth]

    def _features(self, spec: TrialSpec) -> np.ndarray:
        word = entries(spec)
        return np.array(
            [
                spec.student.depth,
                *(float(layer in word) for layer in range(1, self.layers)),
                math.log(spec.train.lr),
                spec.losses.logits.temperature,
                *(math.log(term.weight) for name, term in spec.losses.active() if name != "logits"),
            ]
        )


def entries(spec: TrialSpec) -> tuple[int, ...]:
    """Returns a trial's layer map."""
    word = spec.layer_map.word
    assert word != "random"
    return tuple(word)


def _by_depth(records: Sequence[TrialRecord]) -> dict[int, list[TrialRecord]]:
    complete = [record for record in records if record.state == "complete"]
    depths = sorted({record.spec.student.depth for record in complete})
    return {d: [r for r in complete if r.spec.student.depth == d] for d in depths}


@dataclass
class Simulation:
    """One search whose trials take their scores from the model.

    Attributes:
        curves: The model of the scores.
        space: The space that trials are drawn from.
        sampler: Builds the sampler, from a seed for each trial.
        seed: Of the search.
        noise: Standard deviation of a trial's scores; most of it is common to all of them.
        begun: Trials started so far.
    """

    curves: Curves
    space: SearchSpace
    sampler: Callable[[int], BaseSampler]
    seed: int
    noise: float
    begun: int = 0

    def run(self, rungs: SuccessiveHalving | None, points: Sequence[dict[str, Any]]) -> list[float]:
        """Returns the true score of the seemingly best student after each of `_SECONDS`."""
        self._rng = np.random.default_rng(self.seed)
        self._study = optuna.create_study(direction="maximize")
        for point in points:
            self._study.enqueue_trial(point)
        ended: list[tuple[float, float, float]] = []  # time, measured score, true score
        events: list[tuple[float, int, Any]] = []
        for worker in range(_WORKERS):
            heapq.heappush(events, (0.0, worker, None))
        while events:
            now, worker, trial = heapq.heappop(events)
            if now > _SECONDS[-1]:
                break
            if trial is not None and not self._continues(trial, rungs):
                if trial.left == []:
                    halvings = self.curves.halvings[-1]
                    ended.append((now, trial.scores[halvings], trial.true[halvings]))
                trial = None
            if trial is None:
                trial = self._begin()
                now += _START_S
            seconds = trial.seconds * (0.5 ** trial.left[0] - trial.done)
            trial.done = 0.5 ** trial.left[0]
            heapq.heappush(events, (now + seconds, worker, trial))
        return [_returned([e for e in ended if e[0] <= limit]) for limit in _SECONDS]

    def _begin(self) -> Any:
        while True:
            self._study.sampler = self.sampler(int(self._rng.integers(2**31)))
            trial = self._study.ask()
            try:
                spec = self.space.draw(
                    trial, teacher="teacher", teacher_layers=self.curves.layers, seed=0
                )
                break
            except SpecError:
                self._study.tell(trial, state=TrialState.FAIL)
        self.begun += 1
        true = self.curves.of(spec)
        common, *own = self._rng.normal(0, self.noise, 1 + len(true))
        scores = {
            h: score + 0.8 * common + 0.6 * each
            for (h, score), each in zip(true.items(), own, strict=True)
        }
        return SimpleNamespace(
            name=str(self.begun), trial=trial, true=true, scores=scores, done=0.0,
            left=[*self.curves.halvings], seconds=self.curves.seconds(spec),
        )  # fmt: skip

    def _continues(self, trial: Any, rungs: SuccessiveHalving | None) -> bool:
        """Reports an evaluation to the study; returns whether the trial continues."""
        halvings = trial.left.pop(0)
        score = trial.scores[halvings]
        report(self._study, trial.trial, {100 >> halvings: score})
        if not trial.left:
            tell(self._study, trial.trial, TrialState.COMPLETE, values=[score])
            return False
        measurement: Any = SimpleNamespace(halvings=halvings, finished=False, score=score)
        if rungs is None or rungs.continues(trial.name, measurement):
            return True
        tell(self._study, trial.trial, TrialState.PRUNED)
        return False


def _returned(ended: Sequence[tuple[float, float, float]]) -> float:
    """Returns the true score of the seemingly best student, 0 if there is none."""
    return max(ended, key=lambda each: each[1])[2] if ended else 0.0


if __name__ == "__main__":
    main()
