"""Scores of students by layer map: every strictly increasing map, on several tasks.

Numbers to look at: the last lines, the rank correlation (Spearman's) of the maps' scores between
two tasks, and of a property of a map with its score. A rule of thumb that holds on one task only is
not a rule.

    python benchmarks/method/layer_maps.py --task acceptability [--seeds 3]
    python benchmarks/method/layer_maps.py --task cola,sst2 --data DIR --models DIR --out DIR

Folders and options are those of evidence.py. The loss weights are those of its search, or the
published ones if there was no search.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
from pathlib import Path

from scipy import stats

from benchmarks.method import evidence
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.trial import ResolvedLayerMap
from lkd_tune.models.loading import read_depth
from lkd_tune.records.run import RunFolder

Map = tuple[int, ...]

FEATURES = {
    "mean layer (late maps are large)": lambda m: statistics.mean(m),
    "first layer after the embeddings": lambda m: m[1],
    "layer below the last": lambda m: m[-2],
    "largest gap": lambda m: max(b - a for a, b in itertools.pairwise(m)),
    "distance from the uniform map": lambda m: sum(
        abs(a - b) for a, b in zip(m, preset_map("skip", m[-1], len(m) - 1), strict=True)
    ),
}


def main() -> None:
    """Trains what is missing and prints a table over all tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    evidence.add_arguments(parser)
    parser.add_argument("--plot", type=Path, help="file for a plot of the maps")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    scores = {task: measure(task, arguments) for task in arguments.task.split(",")}
    tasks = list(scores)
    maps = sorted(
        scores[tasks[0]], key=lambda m: -statistics.mean(ranks(scores[task])[m] for task in tasks)
    )
    print("\n| layer map | " + " | ".join(tasks) + " |\n| --- |" + " --- |" * len(tasks))
    for layer_map in maps:
        cells = (
            f"{statistics.mean(seeds):.3f} ± {statistics.stdev(seeds) if seeds[1:] else 0:.3f}"
            for seeds in (scores[task][layer_map] for task in tasks)
        )
        print(f"| {'-'.join(map(str, layer_map))} | {' | '.join(cells)} |")
    print("\nrank correlation with the score, and its p:")
    for one, other in itertools.combinations(tasks, 2):
        print_correlation(
            f"{one} and {other}", means(scores[one], maps), means(scores[other], maps)
        )
    for name, feature in FEATURES.items():
        for task in tasks:
            print_correlation(
                f"{name}, {task}", [feature(m) for m in maps], means(scores[task], maps)
            )
    if arguments.plot:
        draw(scores, arguments.plot)


def measure(task: str, arguments: argparse.Namespace) -> dict[Map, list[float]]:
    """Returns the scores of each map, one for each seed: the mean of dev and test.

    The mean of two has less noise than one. Neither split chooses a map. If the loss weights come
    from a search, dev chose them, for all maps alike.
    """
    space = evidence.space_of(task, arguments)
    teacher = evidence.teacher_of(space)
    layers = read_depth(teacher)
    depth = space.settings.student.depth
    spec = evidence.rows_of(task, space, teacher, layers)[evidence.PUBLISHED]
    run = RunFolder(arguments.out / task / "search")
    if run.manifest.exists():
        losses = evidence.search(space, teacher, run.path).losses
        spec = spec.model_copy(update={"losses": losses})
    found, metric = {}, spec.task.metric
    for inner in itertools.combinations(range(1, layers), depth - 1):
        layer_map = (0, *inner, layers)
        own = spec.model_copy(
            update={"layer_map": ResolvedLayerMap(word=layer_map, layer=layer_map)}
        )
        label = f"{task}: map {layer_map}"
        seeds = evidence.seeds_of(label, own, arguments.out / task, arguments.seeds)
        found[layer_map] = [(seed["dev"][metric] + seed["score"]) / 2 for seed in seeds]
    return found


def ranks(scores: dict[Map, list[float]]) -> dict[Map, float]:
    """Returns the rank of each map by its mean score; the best has the highest."""
    order = stats.rankdata([statistics.mean(seeds) for seeds in scores.values()])
    return dict(zip(scores, order, strict=True))


def means(scores: dict[Map, list[float]], maps: list[Map]) -> list[float]:
    """Returns mean scores in the order of some maps."""
    return [statistics.mean(scores[layer_map]) for layer_map in maps]


def print_correlation(name: str, one: list[float], other: list[float]) -> None:
    """Prints a rank correlation."""
    if len(set(one)) > 1:
        found = stats.spearmanr(one, other)
        print(f"  {name:58} {found.statistic:+.2f}  p {found.pvalue:.3f}")


def draw(scores: dict[str, dict[Map, list[float]]], path: Path) -> None:
    """Draws each map as a line from student layer to teacher layer, a panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(scores), figsize=(0.5 + 4.2 * len(scores), 3.6), squeeze=False, layout="constrained"
    )
    for axes, (task, found) in zip(panels[0], scores.items(), strict=True):
        values = {layer_map: statistics.mean(seeds) for layer_map, seeds in found.items()}
        colours = pyplot.cm.ScalarMappable(pyplot.Normalize(*_ends(values)), "viridis")
        rising = sorted(values, key=values.__getitem__)  # the best on top
        for place, layer_map in enumerate(rising):
            # Side by side if maps share an entry.
            shift = 0.3 * (place / max(1, len(rising) - 1) - 0.5)
            axes.plot(
                range(len(layer_map)),
                [layer + shift for layer in layer_map],
                "o-",
                color=colours.to_rgba(values[layer_map]),
                linewidth=3 if layer_map == rising[-1] else 1.5,
                markersize=4,
            )
        layers, depth = rising[-1][-1], len(rising[-1]) - 1
        axes.set(
            title=task,
            xlabel="student layer",
            ylabel="teacher layer",
            xticks=range(depth + 1),
            yticks=range(layers + 1),
        )
        axes.spines[["top", "right"]].set_visible(False)
        figure.colorbar(colours, ax=axes, label="score")
    figure.savefig(path, dpi=100)


def _ends(values: dict[Map, float]) -> tuple[float, float]:
    return min(values.values()), max(values.values())


if __name__ == "__main__":
    evidence.exit_on_spec_error(main)
