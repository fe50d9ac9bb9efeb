"""Wall time until a search has a student as good as the best of plain Ray Tune.

Number to look at: the last line, how many times sooner `lkd-tune search` has a student as good as
the best that Optuna's TPE finds in plain Ray Tune. There each trial has its own process, runs the
teacher, pads to the full length and, without --fast-losses, materialises the differences. Both
search the same space: plain Ray Tune with the number of trials in the space, lkd-tune for a part of
the time that these take. The third curve is lkd-tune with random trials and without early stopping.
The teacher is trained before the clocks start; storing its targets counts.

    python benchmarks/tuning/search.py [--space layer_map.yaml] [--set KEY=VALUE …] [--seeds 5]

With --json FILE each seed is stored when it is done, and a repeated command continues from there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import ray

from benchmarks.tuning.plain_search import search_plainly
from lkd_tune.cluster.ray import quieten_ray
from lkd_tune.config.read_space import load_space
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.files.cache import cache_dir
from lkd_tune.models.loading import read_depth
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.tuner import run_search

Curve = list[tuple[float, float]]


def lkd_tune_curve(space: SearchSpace, folder: Path) -> Curve:
    """Returns (seconds since the start, score) of each complete trial of `lkd-tune search`."""
    run, began = RunFolder(folder), time.time()
    run_search(space, run, quiet=True)
    return sorted(
        ((run.trial(record.name) / "outcome.json").stat().st_mtime - began, record.score or 0.0)
        for record in run.read_trials()
        if record.is_drawn and record.state == "complete"
    )


def measure(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Returns the curves of one seed; lkd-tune gets a part of the time of plain Ray Tune."""
    name, overrides = given.space, given.set
    own = [f"search.seed={seed}", "search.baseline=false", "confirm=null"]
    space = load_space(find_space(name), [*overrides, *own])
    settings = space.settings
    if settings.teacher.train is not None:
        teacher = str(train_teacher(settings.task, settings.teacher.train))
        space = load_space(find_space(name), [*overrides, *own, f"teacher={teacher}"])
    else:
        teacher = settings.teacher.model or ""
    changes = [*overrides, *own, f"teacher={teacher}"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        curves = {
            "plain TPE": search_plainly(
                load_space(find_space(name), changes),
                teacher,
                read_depth(teacher),
                cache_dir(),
                optuna.samplers.TPESampler(seed=seed),
                folder,
                fast=given.fast_losses,
            )
        }
        minutes = given.part * max(at for at, _ in curves["plain TPE"]) / 60
        limited = ["search.trials=10000", f"search.time_budget={minutes}"]
        at_random = [
            "search.sampler=random",
            "search.scheduler=none",
            "search.recipes=[]",
        ]
        for kind, more in (("lkd-tune", []), ("random", at_random)):
            space = load_space(find_space(name), [*changes, *limited, *more])
            # Its own cache, so that storing the teacher's targets counts.
            with mock.patch.dict(os.environ, LKD_TUNE_CACHE=str(folder / f"{kind}-cache")):
                curves[kind] = lkd_tune_curve(space, folder / kind)
    return {"seed": seed, "curves": curves}


def best_by(curve: Curve, seconds: float = float("inf")) -> float:
    """Returns the best score within some seconds."""
    return max((score for at, score in curve if at <= seconds), default=float("-inf"))


def reached(curve: Curve, score: float) -> float | None:
    """Returns when a curve first has a score, None if never."""
    return next((at for at, found in curve if found >= score), None)


def main() -> None:
    """Prints a row for each seed and the median of the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--space", default="layer_map.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--part", type=float, default=0.25, help="of plain Ray Tune's time")
    parser.add_argument(
        "--cpus", type=int, default=2, help="CPUs for each of the searches, which run in turn"
    )
    parser.add_argument(
        "--fast-losses", action="store_true", help="plain Ray Tune uses the fast losses, too"
    )
    parser.add_argument("--json", type=Path, help="file for the curves")
    parser.add_argument("--plot", type=Path, help="file for a plot of the curves")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    quieten_ray()
    kept = arguments.json is not None and arguments.json.exists()
    results = json.loads(arguments.json.read_text("utf-8")) if kept else []
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    for seed in seeds[len(results) :]:
        ray.init(
            "local",
            num_cpus=arguments.cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        results.append(measure(arguments, seed))
        ray.shutdown()
        if arguments.json:
            arguments.json.write_text(json.dumps(results), "utf-8")
    show(results)
    if arguments.plot:
        draw(results, arguments.plot)


def show(results: list[dict[str, Any]]) -> None:
    """Prints a row for each seed and the median of the ratios; `never` counts as 0."""
    print("| seed | plain TPE's best | after s | lkd-tune has it | sooner | its best | random |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ratios = []
    for result in results:
        curves = result["curves"]
        best = best_by(curves["plain TPE"])
        whole = reached(curves["plain TPE"], best) or 0.0
        sooner = reached(curves["lkd-tune"], best)
        ratios.append(whole / sooner if sooner else 0.0)
        print(
            f"| {result['seed']} | {best:.4f} | {whole:.0f} | {_seconds(sooner)} | "
            f"{ratios[-1]:.1f} times | {best_by(curves['lkd-tune']):.4f} | "
            f"{best_by(curves['random']):.4f} |"
        )
    print(f"median: {statistics.median(ratios):.1f} times sooner")


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f}"


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draws the best score so far over wall time, a thin line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    colours = {"lkd-tune": "#0072b2", "plain TPE": "#d55e00", "random": "#999999"}
    for kind, colour in colours.items():
        for i, result in enumerate(results):
            curve = sorted(result["curves"][kind])
            best = [best_by(curve, at) for at, _ in curve]
            label = kind if i == 0 else None
            axes.step(
                [at for at, _ in curve], best, where="post", color=colour, alpha=0.7, label=label
            )
    axes.set(xlabel="seconds", ylabel="best score on dev so far", xscale="log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
