"""Plots of the searched parameters: their importance, and the values of all trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from lkd_tune.results.plots.style import add_colour_bar, colour, new_figure, score_colour
from lkd_tune.results.study import CompleteTrial, Parameter

_MAX_PARAMETERS = 9


def plot_importance(importance: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Returns a bar chart of each parameter's share of the variance, a panel for each objective."""
    if not importance:
        return None
    rows = max(map(len, importance.values()))
    height = 0.5 + len(importance) * (0.5 + 0.3 * rows)
    figure, panels = new_figure(height, len(importance), squeeze=False, sharex=True)
    for axes, (objective, shares) in zip(panels[:, 0], importance.items(), strict=True):
        names = sorted(shares, key=lambda name: shares[name])
        axes.barh(names, [shares[name] for name in names], color=colour("s1"), height=0.65)
        for place, name in enumerate(names):
            axes.text(shares[name] + 0.01, place, f"{shares[name]:.0%}", va="center", fontsize=9)
        axes.set_xlim(0, 1.12)
        axes.set_title(objective)
        axes.set_xticks([])
        axes.tick_params(length=0, labelcolor=colour("ink"))
        axes.spines["bottom"].set_visible(False)
    return figure


def plot_parallel(
    trials: Sequence[CompleteTrial], parameters: Sequence[Parameter], metric: str, best: str | None
) -> Figure | None:
    """Returns parallel coordinates: a line for each trial over axes of parameters and score."""
    axes_of = [p for p in parameters if p.varies][:_MAX_PARAMETERS]
    if len(trials) < 2 or not axes_of:
        return None
    scores = [trial.score for trial in trials]
    low, high = min(scores), max(scores)
    figure, axes = new_figure(4.4)
    for trial in sorted(trials, key=lambda t: (t.name == best, t.score)):
        chosen = trial.name == best
        ys = [p.position(trial.params[p.name]) if p.name in trial.params else math.nan
              for p in axes_of]  # fmt: skip
        ys.append((trial.score - low) / (high - low) if high > low else 0.5)
        axes.plot(range(len(ys)), ys, linewidth=2.4 if chosen else 1.1, zorder=4 if chosen else 2,
                  color=colour("best") if chosen else score_colour(trial.score, scores),
                  )  # fmt: skip
    for x, parameter in enumerate(axes_of):
        axes.axvline(x, color=colour("faint"), linewidth=0.8, zorder=1)
        for y, text in parameter.ends:
            axes.text(x, y + (0.03 if y else -0.03), text, ha="center", fontsize=8,
                      va="bottom" if y else "top", color=colour("muted"))  # fmt: skip
    last = len(axes_of)
    axes.axvline(last, color=colour("faint"), linewidth=0.8, zorder=1)
    for y, score in ((0, low), (1, high)):
        axes.text(last, y + (0.03 if y else -0.03), f"{score:.3f}", ha="center", fontsize=8,
                  va="bottom" if y else "top", color=colour("muted"))  # fmt: skip
    axes.set_ylim(-0.13, 1.13)
    axes.set_xlim(-0.4, last + 0.4)
    axes.set_yticks([])
    axes.set_xticks(range(last + 1), labels=[*(p.label for p in axes_of), metric],
                    rotation=35, ha="right", color=colour("ink"))  # fmt: skip
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    add_colour_bar(figure, axes, scores, metric)
    return figure
