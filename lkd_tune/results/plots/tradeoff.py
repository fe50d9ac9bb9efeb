"""Plots of the score against a cost of the student, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from lkd_tune.config.objectives import COSTS
from lkd_tune.records.pareto import front_of
from lkd_tune.results.formatting import layer_maps, number, short
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.plots.style import add_tip, colour, finish_axes, new_figure


def plot_tradeoff(board: Leaderboard, cost: str) -> Figure | None:
    """Returns scores against a cost: of the teacher, of complete and of stopped trials.

    None if the cost was not measured.
    """
    rows = [row for row in board.rows if row.rank is not None and getattr(row, cost) is not None]
    if not rows:
        return None
    stopped = [
        row
        for row in board.rows
        if row.state == "stopped"
        and getattr(row, cost) is not None
        and row.score is not None
        and row.score > lowest_shown(board)
    ]
    figure, axes = new_figure(3.6)

    def x(row: Row) -> float:
        return getattr(row, cost) / COSTS[cost].scale

    def draw(some: Sequence[Row], label: str, **options: Any) -> None:
        for place, row in enumerate(some):  # one by one: each has its tip
            dot = axes.scatter(
                [x(row)], [row.score], linewidths=0, label=label if place == 0 else None, **options
            )
            add_tip(dot, _tip(board, row, cost))

    front = sorted(front_rows(rows, cost), key=x)
    best = next((row for row in rows if row.rank == 1), None)
    others = [row for row in rows if row not in front]
    draw(stopped, "stopped early", s=10, color=colour("faint"), zorder=2)
    draw(others, "students", s=34, color=colour("faint"), zorder=3)
    if len(front) > 1:
        axes.step([x(r) for r in front], [r.score for r in front], where="post", linewidth=1.3,
                  color=colour("s1"), zorder=3)  # fmt: skip
    draw(front, "Pareto front", s=44, color=colour("s1"), zorder=4)
    if best is not None:
        draw([best], f"best ({best.name})", s=150, marker="*", color=colour("best"), zorder=5)
    draw_references(axes, board)
    every = [x(row) for row in (*rows, *stopped)]
    teacher = board.teacher.get(cost)
    if teacher is not None and board.teacher_score is not None:
        every.append(teacher / COSTS[cost].scale)
        mark = axes.scatter([every[-1]], [board.teacher_score], s=60, marker="D", linewidths=0,
                            color=colour("s2"), zorder=4)  # fmt: skip
        value = f"{short(every[-1])} {COSTS[cost].unit}".strip()
        add_tip(mark, f"teacher: {board.metric} {number(board.teacher_score)}, {value}")
    low, high = min(every), max(every)
    margin = max(
        0.08 * (high - low), 0.04 * high
    )  # so that the timer's noise does not fill the width
    axes.set_xlim(low - margin, high + margin)
    axes.ticklabel_format(useOffset=False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3, borderaxespad=0)
    finish_axes(axes, COSTS[cost].axis, f"{board.metric} on dev")
    return figure


def lowest_shown(board: Leaderboard) -> float:
    """Returns the score above which stopped trials are shown, so that complete ones fill a plot."""
    scores = [row.score or 0.0 for row in board.rows if row.rank is not None]
    top = max([*scores, board.teacher_score or 0.0])
    return min(scores) - 0.5 * (top - min(scores))


def _tip(board: Leaderboard, row: Row, cost: str) -> str:
    """Returns what a browser shows of a student when the mouse is over its dot."""
    state = ", stopped early" if row.state == "stopped" else ""
    value = f"{short(getattr(row, cost) / COSTS[cost].scale)} {COSTS[cost].unit}".strip()
    maps = layer_maps(row.word_map, row.layer_map)
    mean = f" (mean of other seeds {number(row.mean)})" if row.mean is not None else ""
    return (
        f"trial {row.name}{state}: {board.metric} {number(row.score)}{mean}, {value}; "
        f"{row.recipe}, depth {row.depth}, map {maps}, lr {short(row.lr)}"
    )


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
