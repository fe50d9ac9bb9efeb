"""Plots of the score against a cost of the student, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lkd_tune.config.objectives import COSTS
from lkd_tune.records.pareto import front_of
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.plots.style import colour, finish_axes, new_figure


def plot_tradeoff(board: Leaderboard, cost: str) -> Figure | None:
    """Returns scores of complete trials against a cost; None if the cost was not measured."""
    rows = [row for row in board.rows if row.rank is not None and getattr(row, cost) is not None]
    if not rows:
        return None
    figure, axes = new_figure(3.6)

    def x(row: Row) -> float:
        return getattr(row, cost) / COSTS[cost].scale

    axes.scatter([x(r) for r in rows], [r.score for r in rows], s=34, color=colour("faint"),
                 linewidths=0, label="students", zorder=2)  # fmt: skip
    front = sorted(front_rows(rows, cost), key=x)
    if len(front) > 1:
        axes.step([x(r) for r in front], [r.score for r in front], where="post", linewidth=1.3,
                  color=colour("s1"), zorder=2)  # fmt: skip
    axes.scatter([x(r) for r in front], [r.score for r in front], s=44, color=colour("s1"),
                 linewidths=0, label="Pareto front", zorder=3)  # fmt: skip
    best = next((row for row in rows if row.rank == 1), None)
    if best is not None:
        axes.scatter([x(best)], [best.score], s=150, marker="*", color=colour("best"),
                     linewidths=0, label=f"best ({best.name})", zorder=4)  # fmt: skip
    draw_references(axes, board)
    low, high = min(map(x, rows)), max(map(x, rows))
    margin = max(
        0.08 * (high - low), 0.04 * high
    )  # so that the timer's noise does not fill the width
    axes.set_xlim(low - margin, high + margin)
    axes.ticklabel_format(useOffset=False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3, borderaxespad=0)
    finish_axes(axes, COSTS[cost].axis, f"{board.metric} on dev")
    return figure


def front_rows(rows: Sequence[Row], cost: str) -> list[Row]:
    """Returns the rows on the Pareto front of score and cost."""
    costs = {row.name: (-(row.score or 0.0), float(getattr(row, cost))) for row in rows}
    names = {*front_of(costs)}
    return [row for row in rows if row.name in names]


def draw_references(axes, board: Leaderboard) -> None:  # type: ignore[no-untyped-def]
    """Draws lines for the teacher and for the student on the labels alone."""
    if board.teacher_score is not None:
        axes.axhline(board.teacher_score, color=colour("s2"), linewidth=1.3, linestyle="--",
                     label="teacher", zorder=1)  # fmt: skip
    if board.baseline is not None and board.baseline.score is not None:
        axes.axhline(board.baseline.score, color=colour("s4"), linewidth=1.3, linestyle=":",
                     label="labels alone", zorder=1)  # fmt: skip
