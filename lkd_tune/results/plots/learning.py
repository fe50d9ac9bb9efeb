"""Plots of scores and losses by step."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lkd_tune.records.trial_record import TrialRecord
from lkd_tune.results.leaderboard import Leaderboard
from lkd_tune.results.plots.style import colour, finish_axes, new_figure, series_style
from lkd_tune.results.plots.tradeoff import draw_references


def plot_learning(board: Leaderboard, records: Sequence[TrialRecord]) -> Figure | None:
    """Returns each trial's score by step; markers show trials that were stopped early."""
    trials = [record for record in records if record.is_numbered and record.measurements]
    if not trials:
        return None
    figure, axes = new_figure(3.6)
    best = board.best.name if board.best else None
    ends = {"stopped": ("x", "stopped early"), "running": ("o", "unfinished")}
    labelled: set[str] = set()
    for record in trials:
        steps = [m.step for m in record.measurements]
        scores = [m.score for m in record.measurements]
        if record.name == best:
            axes.plot(steps, scores, color=colour("best"), linewidth=2.2, marker="o", markersize=4,
                      label=f"best ({best})", zorder=4)  # fmt: skip
            continue
        single = "." if len(steps) == 1 else None
        axes.plot(steps, scores, color=colour("faint"), linewidth=0.9, marker=single, zorder=2)
        if record.state in ends:
            marker, label = ends[record.state]
            axes.plot(steps[-1:], scores[-1:], linestyle="", marker=marker, markersize=6,
                      color=colour("s1"), fillstyle="none", zorder=3,
                      label=None if label in labelled else label)  # fmt: skip
            labelled.add(label)
    if board.task_metric == board.metric:
        draw_references(axes, board)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3, borderaxespad=0)
    finish_axes(axes, "optimizer step", f"{board.task_metric} on dev")
    return figure


def plot_losses(record: TrialRecord) -> Figure | None:
    """Returns the unweighted loss terms of a trial by step."""
    weights = {name: term.weight for name, term in record.spec.losses.terms()}
    series = {
        name: [(m.step, m.losses[name]) for m in record.measurements if m.losses.get(name, 0) > 0]
        for name, weight in weights.items()
        if weight > 0
    }
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    figure, axes = new_figure(3.6)
    for place, (name, points) in enumerate(series.items()):
        axes.plot(*zip(*points, strict=True), **series_style(place), linewidth=1.6,
                  marker="o", markersize=3.5, label=f"{name} × {weights[name]:.3g}")  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # the default needs mathtext, which is off
    axes.yaxis.set_minor_formatter("")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=2, borderaxespad=0)
    finish_axes(axes, "optimizer step", "unweighted loss")
    return figure
