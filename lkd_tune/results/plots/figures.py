"""All plots of a run, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import Leaderboard
from lkd_tune.results.plots.layers import plot_pairs, plot_wires
from lkd_tune.results.plots.learning import plot_learning, plot_losses
from lkd_tune.results.plots.parameters import plot_importance, plot_parallel
from lkd_tune.results.plots.seeds import plot_seeds
from lkd_tune.results.plots.style import style, write_figure
from lkd_tune.results.plots.tradeoff import plot_tradeoff
from lkd_tune.results.study import read_study


@dataclass(frozen=True)
class Plot:
    """A plot in the page.

    Attributes:
        name: Of its files, without the suffix.
        title: What it shows.
        note: How to read it.
        svg: The picture, to be put into the page as it is.
    """

    name: str
    title: str
    note: str
    svg: str


def write_plots(
    run: RunFolder, board: Leaderboard, ablation: dict[str, Any] | None, folder: Path
) -> list[Plot]:
    """Writes SVG and PNG of each plot that the run has something for; removes earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    records = run.read_trials()
    study = read_study(run, board.objectives)
    best = board.best.name if board.best else None
    layers = board.teacher.get("layers")
    plots = []

    def add(name: str, title: str, note: str, draw: Callable[[], Figure | None]) -> None:
        with style():
            figure = draw()
        if figure is None:
            (folder / f"{name}.svg").unlink(missing_ok=True)
            (folder / f"{name}.png").unlink(missing_ok=True)
        else:
            plots.append(Plot(name, title, note, write_figure(figure, folder, name)))

    add("size", "Score against size", "Left and high is good. The line joins the students that no "
        "other beats in both.", lambda: plot_tradeoff(board, "parameters"))  # fmt: skip
    timed = any(row.latency_ms is not None for row in board.rows if row.rank)
    cost, word = ("latency_ms", "latency") if timed else ("flops", "computation")
    add("speed", f"Score against {word}", "Of one example of full length, on the device that "
        "trained it." if timed else "Of one example of full length.",
        lambda: plot_tradeoff(board, cost))  # fmt: skip
    if layers:
        add("layer_maps", "Layer maps", "Which teacher layer each student layer learns from; 0 is "
            "the embeddings. The best trial is the thick line.",
            lambda: plot_wires(board, records, layers))  # fmt: skip
        add("layer_pairs", "Teacher layer × student layer", "Mean score of the complete trials "
            "whose map joins the two.", lambda: plot_pairs(board, records, layers))  # fmt: skip
    add("importance", "What mattered", f"Share of the differences that each parameter explains "
        f"(fANOVA over {len(study.trials)} complete trials); only parameters that every trial has.",
        lambda: plot_importance(study.importance))  # fmt: skip
    add("parallel", "All complete trials", "A line a trial; the best is thick.",
        lambda: plot_parallel(study.trials, study.parameters, board.metric, best))  # fmt: skip
    add("learning", "Learning curves", "Score on dev by step; a cross is where the scheduler "
        "stopped a trial.", lambda: plot_learning(board, records))  # fmt: skip
    add("losses", "Loss terms of the best", "Mean since the measurement before; the factor is its "
        "weight.", lambda: plot_losses(run.read_trial(best)) if best else None)  # fmt: skip
    add("confirmation", "With other seeds", "Dots are seeds, the line is the mean's 95 % interval.",
        lambda: plot_seeds(run.read_confirmation(), board.metric))  # fmt: skip
    entries = ablation["entries"] if ablation else []
    add("ablation", "Without each loss term", "The winner trained again with one term's weight 0.",
        lambda: plot_seeds([{**e, "trial": ablation_label(e)} for e in entries], board.metric),
        )  # fmt: skip
    return plots


def ablation_label(entry: dict[str, Any]) -> str:
    """Returns what an entry of ablation.json is called."""
    return f"without {entry['removed']}" if entry["removed"] else "all terms"
