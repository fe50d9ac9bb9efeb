"""All plots of a run, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import Leaderboard
from lkd_tune.results.plots.layers import plot_layer_maps, plot_layer_pairs
from lkd_tune.results.plots.learning import plot_learning, plot_losses
from lkd_tune.results.plots.parameters import plot_importance, plot_parallel
from lkd_tune.results.plots.seeds import plot_seeds
from lkd_tune.results.plots.style import style, write_figure
from lkd_tune.results.plots.tradeoff import plot_tradeoff
from lkd_tune.results.study import read_study


@dataclass(frozen=True)
class Plot:
    """A plot in the report.

    Attributes:
        name: Name of its files, without the suffix.
        title: Its heading.
        note: How to read it.
        svg: The SVG element for the page.
    """

    name: str
    title: str
    note: str
    svg: str


def write_plots(
    run: RunFolder, board: Leaderboard, ablation: dict[str, Any] | None, folder: Path
) -> list[Plot]:
    """Writes SVG and PNG of each plot that the run has data for; removes the files of others.

    Args:
        run: The run.
        board: Its leaderboard.
        ablation: The contents of ablation.json; None without it.
        folder: The folder of the files. It is created.

    Returns:
        The plots, in the order of the report.
    """
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

    add(
        "size",
        "Score against size",
        "Small and high is better. The line is the Pareto front. Trials that were stopped at far "
        f"lower scores are not shown.{_why_best(board)}",
        lambda: plot_tradeoff(board, "parameters"),
    )
    timed = any(row.latency_ms is not None for row in board.rows if row.rank)
    cost, word = ("latency_ms", "latency") if timed else ("flops", "computation")
    where = ", on the device that trained the student" if timed else ""
    add(
        "speed",
        f"Score against {word}",
        f"For one full-length example{where}.",
        lambda: plot_tradeoff(board, cost),
    )
    if layers:
        add(
            "layer_maps",
            "Layer maps",
            "Which teacher layer each student layer learns from; 0 is the embeddings. The thick "
            "line is the best trial.",
            lambda: plot_layer_maps(board, records, layers),
        )
        add(
            "layer_pairs",
            "Teacher layer × student layer",
            "Mean score of the complete trials whose map contains the pair.",
            lambda: plot_layer_pairs(board, records, layers),
        )
    add(
        "importance",
        "Parameter importance",
        "Share of the variance that each parameter explains (fANOVA on "
        f"{len(study.trials)} complete trials). Only parameters that all trials have are shown.",
        lambda: plot_importance(study.importance),
    )
    add(
        "parallel",
        "All complete trials",
        "One line for each trial; the thick line is the best trial.",
        lambda: plot_parallel(study.trials, study.parameters, board.metric, best),
    )
    add(
        "learning",
        "Learning curves",
        "Score on dev by step; a cross marks a trial that was stopped early.",
        lambda: plot_learning(board, records),
    )
    add(
        "losses",
        "Loss terms of the best trial",
        "Mean since the last measurement; the factor is the weight.",
        lambda: plot_losses(run.read_trial(best)) if best else None,
    )
    add(
        "confirmation",
        "With other seeds",
        "Small dots are seeds; the line is the 95 % confidence interval of the mean.",
        lambda: plot_seeds(run.read_confirmation(), board.metric),
    )
    entries = ablation["entries"] if ablation else []
    labelled = [{**entry, "trial": ablation_label(entry)} for entry in entries]
    add(
        "ablation",
        "Without each loss term",
        "The best trial, trained again with one term's weight set to 0.",
        lambda: plot_seeds(labelled, board.metric),
    )
    return plots


def _why_best(board: Leaderboard) -> str:
    """Returns why a dot may lie above the best student's; '' if none does."""
    best = board.best
    if best is None or best.score is None or len(board.objectives) > 1:
        return ""
    if all((row.score or 0.0) <= best.score for row in board.rows if row.rank is not None):
        return ""
    return (
        " The best student is not the highest dot: it has the best mean of other seeds, and dots "
        "are scores of the one seed by which trials were chosen."
    )


def ablation_label(entry: dict[str, Any]) -> str:
    """Returns the label of an entry of ablation.json."""
    return f"without {entry['removed']}" if entry["removed"] else "all terms"
