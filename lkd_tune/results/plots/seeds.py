"""Plots of the mean over several seeds, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lkd_tune.results.plots.style import colour, new_figure


def plot_seeds(entries: Sequence[Mapping[str, Any]], metric: str) -> Figure | None:
    """Returns each entry's scores, mean and 95 % confidence interval; None without entries.

    Args:
        entries: Each with `trial`, `scores`, `mean`, `low` and `high`. The first is drawn on top.
        metric: Name of the score.
    """
    if not entries:
        return None
    figure, axes = new_figure(0.9 + 0.36 * len(entries))
    for place, entry in enumerate(reversed(entries)):
        first = place == len(entries) - 1
        shade = colour("best" if first else "s1")
        if entry["low"] is not None:
            axes.plot([entry["low"], entry["high"]], [place, place], color=shade, linewidth=2)
        axes.scatter(entry["scores"], [place] * len(entry["scores"]), s=22, color=colour("faint"),
                     linewidths=0, zorder=3)  # fmt: skip
        axes.scatter([entry["mean"]], [place], s=52, color=shade, linewidths=0, zorder=4)
    names = [entry["trial"] for entry in reversed(entries)]
    axes.set_yticks(range(len(names)), labels=names)
    axes.tick_params(axis="y", length=0, labelcolor=colour("ink"))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"{metric} on dev")
    axes.grid(True, axis="x", linewidth=0.6)
    return figure
