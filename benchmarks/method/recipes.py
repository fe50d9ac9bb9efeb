"""Which recipe gives the best student: each published one, and what a search over them finds.

Numbers to look at: `test`, the mean over seeds, and `gain`, its difference from labels alone with
the half width of its 95 % interval (Welch). The wanted order: the search over all recipes is at
least as good as the best single recipe within its interval, and better than the search over CKD
alone. `s` is the time of one training; that of a search is in its last column.

    python benchmarks/method/recipes.py --task acceptability [--seeds 3] [--trials 16]
    python benchmarks/method/recipes.py --task cola,sst2 --data DIR --models DIR --out DIR

DIR/cola/train.tsv and dev.tsv are the files of a task, and test.tsv if there is one; otherwise
every other line of dev is the test part, which chooses nothing. Teachers as in evidence.py. The
winners of searches are trained again with the seeds of all rows. All recipes have the same layer
map, by default the one that suits most tasks (see layer_maps.py). Each finished training is a file
in --out, so a repeated command continues where it stopped.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.method import evidence
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.recipes import RECIPES
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.models.loading import read_depth
from lkd_tune.records.run import RunFolder
from lkd_tune.records.seed_stats import difference_interval

_SEARCHES = {
    "search over CKD alone": (
        "search.recipes=[]",
        "losses={wr_pair: {loguniform: [0.1, 30]}, wr_triple: {loguniform: [0.1, 30]}, "
        "ltr_pair: {loguniform: [0.1, 30]}, ltr_triple: {loguniform: [0.1, 30]}, "
        "logits: {temperature: {uniform: [1, 4]}}}",
    ),
    "search over all": (),
}


def main() -> None:
    """Prints a table for each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    evidence.add_arguments(parser)
    parser.add_argument("--map", default="lower_half", help="layer map of the recipes")
    parser.add_argument("--rates", default="0.5,2", help="range of a search, in multiples of --lr")
    parser.add_argument("--rows", help="beginnings of the names of rows, with commas between")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for task in arguments.task.split(","):
        show(task, dict(measure(task, arguments)))


def measure(task: str, arguments: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields the name of each row and the results of its seeds."""
    space = evidence.space_of(task, arguments)
    teacher = evidence.teacher_of(space)
    settings, folder = space.settings, arguments.out / task
    layer_map = preset_map(arguments.map, read_depth(teacher), settings.student.depth)
    wanted = tuple(arguments.rows.split(",")) if arguments.rows else ("",)
    for name in RECIPES:
        if name.startswith(wanted):
            spec = TrialSpec(
                task=settings.task,
                teacher=teacher,
                student=settings.student,
                layer_map=ResolvedLayerMap(word=layer_map, layer=layer_map),
                losses=LossSettings(recipe=name),
                train=settings.train,
            )
            yield name, evidence.seeds_of(f"{task}: {name}", spec, folder, arguments.seeds)
    low, high = (float(share) * settings.train.lr for share in arguments.rates.split(","))
    rates = f"train.lr={{loguniform: [{low}, {high}]}}"
    for name, own in _SEARCHES.items():
        if name.startswith(wanted):
            searched = evidence.space_of(task, arguments, (rates, *own))
            run = folder / name.replace(" ", "-")
            spec = evidence.search(searched, teacher, run)
            seeds = evidence.seeds_of(f"{task}: {name}", spec, folder, arguments.seeds)
            yield name, [{**seed, "search_s": _seconds(RunFolder(run))} for seed in seeds]


def _seconds(run: RunFolder) -> float:
    """Returns the time that the trials of a search held their cores, in seconds of one core."""
    return sum(r.outcome.cpu_s for r in run.read_trials() if r.is_drawn and r.outcome)


def show(task: str, table: dict[str, list[dict[str, Any]]]) -> None:
    """Prints a task's table in Markdown."""
    first = next(iter(table.values()))
    print(f"\n{task}: {first[0]['steps']} steps, {len(first)} seeds\n")
    print("| | dev | test | gain over labels | s | s of the search |")
    print("| --- | --- | --- | --- | --- | --- |")
    labels = [run["score"] for run in table.get("labels", [])]
    for name, runs in table.items():
        metric = next(key for key, value in runs[0]["metrics"].items() if value == runs[0]["score"])
        dev = statistics.mean(run["dev"][metric] for run in runs)
        scores = [run["score"] for run in runs]
        seconds = statistics.mean(run["train_s"] for run in runs)
        spent = f"{runs[0]['search_s']:.0f}" if "search_s" in runs[0] else ""
        gain = "" if name == "labels" else difference(scores, labels)
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        print(
            f"| {name} | {dev:.3f} | {statistics.mean(scores):.3f} ± {spread:.3f} | {gain} "
            f"| {seconds:.0f} | {spent} |"
        )


def difference(ours: list[float], theirs: list[float]) -> str:
    """Returns the difference of two means with the half width of its 95 % interval, as text."""
    low, high = difference_interval(ours, theirs)
    if low is None or high is None:
        return ""
    return f"{(low + high) / 2:+.3f} ± {(high - low) / 2:.3f}"


if __name__ == "__main__":
    evidence.exit_on_spec_error(main)
