"""What distillation brings over plain training, by loss term and layer map: a table for each task.

Numbers to look at: `against published`, the difference of a row from the published recipe with the
uniform layer map, trained for the same steps with the same seeds, and the p of a paired t-test; `of
plain`, the row's CPU-seconds relative to plain training of the same student; and the last line of a
task, the cost of the search, and how soon it beat the recipe. The searched student is trained again
with seeds that the search did not see, as are all rows. All are scored on text that the search did
not see: test.tsv, or every other line of dev, of which the search has the rest.

    python benchmarks/method/evidence.py --task acceptability [--seeds 3] [--trials 16]
    python benchmarks/method/evidence.py --task cola,sst2 --data DIR --models DIR --out DIR
    python benchmarks/method/evidence.py --task cola,stsb --data DIR --models DIR --out DIR \\
        --set "stsb:teacher={train: {model: DIR}}"

DIR/cola/train.tsv and dev.tsv are the files of a task, DIR/minilm-cola is its teacher unless --set
names another; acceptability needs neither. Each finished training is a file in --out, so a repeated
command continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.layer_map import PRESETS, preset_map
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.records.run import RunFolder

PLAIN = "no distillation"
PUBLISHED = "CKD, published weights, uniform map"
REGRESSION = "hidden states regressed (TinyBERT)"
SEARCHED = "searched"
SHORTER = "winner of the shorter search"
# The published weights of CKD (Park et al., EMNLP 2021, appendix) by task: temperature, weight of
# both pair-wise terms, weight of both triple-wise terms.
WEIGHTS = {
    "cola": (3, 1, 10),
    "sst2": (4, 100, 1000),
    "rte": (3, 1, 10),
    "qnli": (3, 10, 1),
    "mrpc": (4, 1, 1),
    "stsb": (1, 0.1, 0.1),
    "mnli": (4, 100, 1),
    "qqp": (2, 10, 10),
}
COSTS = ("train_s", "cpu_s", "peak_gib", "samples_per_s")


def main() -> None:
    """Trains what is missing and prints a table for each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--rows", help="prefixes of the rows to print, separated by commas")
    parser.add_argument(
        "--winners",
        type=Path,
        help="the --out of a search with fewer epochs; adds a row for its winner",
    )
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as trials have it
    tables = {}
    for task in arguments.task.split(","):
        space = space_of(task, arguments)
        tables[task] = dict(measure(task, space, arguments))
        show(task, tables[task])
        if arguments.trials:
            print_search_cost(RunFolder(arguments.out / task / "search"))
    if arguments.plot:
        draw(tables, arguments.plot)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which students are trained, and on what."""
    parser.add_argument(
        "--task", default="acceptability", help="one or several, separated by commas"
    )
    parser.add_argument("--data", type=Path, help="folder of the tasks' folders")
    parser.add_argument("--models", type=Path, help="folder of the teachers")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[TASK:]KEY=VALUE",
        dest="settings",
        help="as in lkd-tune search; for one task if its name is given",
    )
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2, help="of tasks with files")
    parser.add_argument(
        "--lr", type=float, help="of all rows. Default: 1e-3 for acceptability, else 2e-4"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16, help="of the search. 0: no search")
    parser.add_argument("--out", type=Path, default=Path("evidence"))


def exit_on_spec_error(main: Callable[[], None]) -> None:
    """Runs a benchmark; prints an error in its settings and exits with code 2."""
    try:
        main()
    except SpecError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def space_of(task: str, arguments: argparse.Namespace, own: Sequence[str] = ()) -> SearchSpace:
    """Returns the space of a task's search: that of layer_map.yaml at one depth and learning rate.

    Args:
        task: The task.
        arguments: Those of `add_arguments`.
        own: Further settings, as KEY=VALUE; those of --set come after them.
    """
    generated = task == "acceptability"
    settings = [
        f"task={task}",
        f"student.depth={arguments.depth}",
        f"search.trials={arguments.trials or 1}",
        "confirm=null",
        "search.baseline=false",
        f"train.lr={arguments.lr or (1e-3 if generated else 2e-4)}",
    ]
    if not generated and arguments.data is not None:
        files = arguments.data / task
        dev, test = files / "dev.tsv", files / "test.tsv"
        if not test.exists():
            dev, test = halves(dev, arguments.out / task)
        settings += [
            f"task.train={files / 'train.tsv'}",
            f"task.dev={dev}",
            f"task.test={test}",
            "train.steps=null",
            f"train.epochs={arguments.epochs}",
        ]
    if not generated and arguments.models is not None:
        settings.append(f"teacher={arguments.models / f'minilm-{task}'}")
    overrides = [*settings, *own, *settings_of(task, arguments)]
    return load_space(find_space("layer_map.yaml"), overrides)


def settings_of(task: str, arguments: argparse.Namespace) -> list[str]:
    """Returns the values of --set that apply to a task, without its name.

    Raises:
        SpecError: If one is for a task that is not in --task, as it would have no effect.
    """
    own = []
    for setting in arguments.settings:
        name = setting.partition("=")[0].rpartition(":")[0]
        if name not in ("", *arguments.task.split(",")):
            raise SpecError(Problem("--set", name, f"is not a task of --task {arguments.task}"))
        if name in ("", task):
            own.append(setting.removeprefix(f"{task}:"))
    return own


def halves(path: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the even and the odd lines of a file without a header; returns both files."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "dev.tsv", folder / "test.tsv"
    for i, file in enumerate(files):
        file.write_text("".join(lines[i::2]), "utf-8")
    return files


def measure(
    task: str, space: SearchSpace, arguments: argparse.Namespace
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields the name of each row and the results of its seeds."""
    from lkd_tune.models.loading import read_depth

    teacher = teacher_of(space)
    rows = rows_of(task, space, teacher, read_depth(teacher))
    if arguments.trials:
        searched = search(space, teacher, arguments.out / task / "search")
        rows = {SEARCHED: searched, PUBLISHED: rows[PUBLISHED], **rows}
    if arguments.winners:
        folder = arguments.winners / task / "search"
        RunFolder(folder).read_manifest()  # fails if there is no search, instead of starting one
        winner = search(space, teacher, folder)
        found = {"losses": winner.losses, "layer_map": winner.layer_map}
        rows = {SHORTER: rows[PUBLISHED].model_copy(update=found), **rows}
    wanted = tuple(arguments.rows.split(",")) if arguments.rows else ("",)
    folder = arguments.out / task
    for name, spec in rows.items():
        if name == PUBLISHED or name.startswith(wanted):
            label = f"{task}: {name}"
            yield name, seeds_of(label, spec, folder, arguments.seeds)


def teacher_of(space: SearchSpace) -> str:
    """Returns the folder of a space's teacher, which is trained if it is missing."""
    from lkd_tune.distillation.teacher import train_teacher

    settings = space.settings
    if settings.teacher.train is not None:
        return str(train_teacher(settings.task, settings.teacher.train))
    assert settings.teacher.model is not None
    return settings.teacher.model


def seeds_of(label: str, spec: TrialSpec, folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Returns the result of each seed, trained now or before."""
    done = []
    for seed in range(1, seeds + 1):
        own = spec.model_copy(update={"seed": seed})
        path = folder / f"{own.digest()}.json"
        if not path.exists():
            print(f"{label}, seed {seed}", file=sys.stderr, flush=True)
            # Each in its own process, so that its memory is not mixed with others.
            context = multiprocessing.get_context("spawn")
            worker = context.Process(target=train, args=(own, path))
            worker.start()
            worker.join()
        done.append(json.loads(path.read_text("utf-8")))
    return done


def published_losses(task: str) -> LossSettings:
    """Returns CKD with the published weights of a task; those of CoLA for other tasks."""
    temperature, pair, triple = WEIGHTS.get(task, WEIGHTS["cola"])
    weights = {"wr_pair": pair, "wr_triple": triple, "ltr_pair": pair, "ltr_triple": triple}
    return LossSettings.model_validate({**weights, "logits": {"temperature": temperature}})


def rows_of(task: str, space: SearchSpace, teacher: str, layers: int) -> dict[str, TrialSpec]:
    """Returns all rows but the searched one; each differs from the recipe in one thing."""
    depth = space.settings.student.depth
    losses = published_losses(task)
    relations = [name for name, _ in losses.active() if name != "logits"]
    logits = losses.with_weights(dict.fromkeys(relations, 0.0))
    labels = logits.model_copy(update={"logits": losses.logits.model_copy(update={"alpha": 1.0})})

    def spec(losses: LossSettings, word: Any = None) -> TrialSpec:
        word = word or preset_map("skip", layers, depth)
        return TrialSpec(
            task=space.settings.task,
            teacher=teacher,
            student=space.settings.student,
            layer_map=ResolvedLayerMap(word=word, layer=word),
            losses=losses,
            train=space.settings.train,
        )

    rows = {
        PLAIN: spec(labels),
        "logits alone": spec(logits),
        # The sum over the layers, as in "TinyBERT", equation 8.
        REGRESSION: spec(logits.with_weights({"hidden": depth + 1.0})),
        PUBLISHED: spec(losses),
    }
    for term, _ in losses.active():
        rows[f"without {term}"] = spec(losses.with_weights({term: 0.0}))
    for preset in PRESETS:
        if preset_map(preset, layers, depth) != preset_map("skip", layers, depth):
            rows[f"map {preset}"] = spec(losses, preset_map(preset, layers, depth))
    rows["map random in each step"] = spec(losses, "random")
    return rows


def search(space: SearchSpace, teacher: str, folder: Path) -> TrialSpec:
    """Returns the best spec of a search, which is run or resumed if it is not finished."""
    from lkd_tune.tuning.tuner import resume_search, run_search

    run = RunFolder(folder)
    result = resume_search(run) if run.manifest.exists() else run_search(space, run)
    assert result.best is not None, "no trial of the search was complete"
    spec = run.read_trial(result.best).spec
    return spec.model_copy(update={"teacher": teacher})


def print_search_cost(run: RunFolder) -> None:
    """Prints the cost of the search, and when it first had a better student than the recipe.

    The unit is the search's own training of the recipe. Like all trials it counts by the cores that
    it held, and it ran beside as many others.
    """
    trials = [record for record in run.read_trials() if record.is_drawn and record.outcome]
    held = [record.outcome.cpu_s for record in trials if record.outcome]
    recipe = next(record for record in trials if record.origin == "recipe ckd")
    assert recipe.outcome is not None
    better = (
        number
        for number, record in enumerate(trials, 1)
        if record.state == "complete" and (record.score or 0.0) > (recipe.score or 0.0)
    )
    number = next(better, None)
    beaten = f"trial {number} was the first" if number else "no trial was seen"
    whole = "" if recipe.state == "complete" else f", which was {recipe.state},"
    print(
        f"\nthe search: {len(trials)} trials held cores for {sum(held):.0f} s, as long as "
        f"{sum(held) / recipe.outcome.cpu_s:.1f} trainings of the recipe{whole} by it; {beaten} to "
        "score above the recipe"
    )


def train(spec: TrialSpec, path: Path) -> None:
    """Trains one student in this process and writes its scores and costs."""
    import torch

    from lkd_tune.distillation.engine import Distillation

    torch.set_num_threads(1)
    began, cpu = time.perf_counter(), time.process_time()
    with Distillation(spec) as distillation:
        last = list(distillation)[-1]
        trained = time.process_time() - cpu
        metrics = distillation.evaluate("test")
    facts = {
        "seed": spec.seed,
        "score": metrics[spec.task.metric],
        "metrics": metrics,
        "dev": last.metrics,
        "steps": last.step,
        "train_s": last.train_s,
        "wall_s": time.perf_counter() - began,
        "cpu_s": trained,
        "samples_per_s": last.samples_per_s,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(facts), "utf-8")
    draft.rename(path)


def show(task: str, table: dict[str, list[dict[str, Any]]]) -> None:
    """Prints a task's table in Markdown."""
    published = [run["score"] for run in table[PUBLISHED]]
    print(f"\n{task}: {table[PUBLISHED][0]['steps']} steps, {len(published)} seeds\n")
    print("| | score on test | against published | p | s | CPU-s | of plain | GiB | examples/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    plain = statistics.mean(run["cpu_s"] for run in table[PLAIN]) if PLAIN in table else None
    for name, runs in table.items():
        scores = [run["score"] for run in runs]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        each = {key: statistics.mean(run[key] for run in runs) for key in COSTS}
        ratio = "" if plain is None else f"{each['cpu_s'] / plain:.2f}"
        costs = (
            f"{each['train_s']:.0f} | {each['cpu_s']:.0f} | {ratio} | "
            f"{each['peak_gib']:.2f} | {each['samples_per_s']:.0f}"
        )
        mean = statistics.mean(scores)
        gain = "" if name == PUBLISHED else f"{mean - statistics.mean(published):+.3f}"
        print(
            f"| {name} | {mean:.3f} ± {spread:.3f} | {gain} | {p_value(scores, published)} | "
            f"{costs} |"
        )


def p_value(scores: list[float], published: list[float]) -> str:
    """Returns the p of a paired t-test as text, empty if there is none."""
    if scores == published or len(scores) < 2:
        return ""
    return f"{stats.ttest_rel(scores, published).pvalue:.3f}"


def draw(tables: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Draws each row's seeds and mean, a panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(next(iter(tables.values())))
    figure, panels = pyplot.subplots(
        1,
        len(tables),
        figsize=(3 + 4 * len(tables), 0.8 + 0.3 * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (task, table) in zip(panels[0], tables.items(), strict=True):
        for place, name in enumerate(names):
            scores = [run["score"] for run in table.get(name, [])]
            colour = "#d55e00" if name == SEARCHED else "#0072b2"
            axes.plot(scores, [place] * len(scores), "o", color=colour, alpha=0.4, markersize=4)
            if scores:
                axes.plot(statistics.mean(scores), place, "|", color=colour, markersize=14)
        axes.axvline(
            statistics.mean(run["score"] for run in table[PUBLISHED]),
            color="#999999",
            linewidth=0.8,
        )
        axes.set(title=task, xlabel="score on test", yticks=range(len(names)), yticklabels=names)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].invert_yaxis()  # shared by all
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    exit_on_spec_error(main)
