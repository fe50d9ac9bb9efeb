"""Draws the picture of README and of the home page from a run of `layer_map.yaml`.

    lkd-tune search --space layer_map.yaml --name first
    python docs/draw_search.py runs/first

writes docs/images/search-light.svg and search-dark.svg: the scores of all trials by step, and the
teacher layers that the best student starts from and is compared with.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import Leaderboard
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.plots.style import COLOURS

_SIZE = (8.2, 3.3)  # inches; text stays readable where the picture is narrow
Colour = Callable[[str], str]


def main() -> None:
    """Draws the picture in both schemes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "images")
    given = parser.parse_args()
    for place, scheme in enumerate(("light", "dark")):
        text = draw(RunFolder(given.run), lambda name, place=place: COLOURS[name][place])
        (given.to / f"search-{scheme}.svg").write_text(text, "utf-8")


def draw(run: RunFolder, colour: Colour) -> str:
    """Returns the picture as SVG, on a transparent ground."""
    board = read_leaderboard(run)
    options = {
        "font.size": 11,
        "svg.fonttype": "path",  # a page that shows the file as a picture has no fonts for it
        "svg.hashsalt": "search",
        "text.color": colour("ink"),
        "axes.labelcolor": colour("ink"),
        "axes.edgecolor": colour("muted"),
        "xtick.color": colour("muted"),
        "ytick.color": colour("muted"),
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(options):
        figure = Figure(figsize=_SIZE, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        _draw_trials(left, run, board, colour)
        _draw_layers(right, board, colour)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def _draw_trials(axes: Any, run: RunFolder, board: Leaderboard, colour: Colour) -> None:
    """Draws the scores of the trials by step, and those of the teacher and of the labels alone."""
    best = board.best
    assert best is not None
    trials = [trial for trial in run.read_trials() if trial.is_drawn and trial.measurements]
    end = max(m.total_steps for trial in trials for m in trial.measurements)
    for trial in trials:
        steps, scores = zip(*((m.step, m.score) for m in trial.measurements), strict=True)
        if trial.name == best.name:
            axes.plot(steps, scores, color=colour("best"), linewidth=2.6, marker="o", zorder=4)
            continue
        axes.plot(steps, scores, color=colour("s1"), linewidth=1.1, alpha=0.55, zorder=2)
        mark = "x" if trial.state == "stopped" else "o"
        axes.plot(steps[-1], scores[-1], mark, color=colour("s1"), markersize=5, zorder=3)
    lines = [("teacher", board.teacher_score, "s2")]
    if board.baseline is not None:
        same = "the same layers,\nlabels alone"
        lines.append((same, board.baseline.score, "s4"))
    for label, score, name in lines:
        axes.plot([0, end], [score] * 2, "--", color=colour(name), linewidth=1.4, zorder=1)
        axes.text(end * 1.035, score, label, color=colour(name), va="center", fontsize=10)
    axes.text(
        end * 1.035, best.score, "best student", va="center",
        color=colour("best"), fontsize=10, weight="bold",
    )  # fmt: skip
    axes.set_xlim(0, end * 1.5)  # the labels stand inside
    axes.set_xticks(sorted({m.step for trial in trials for m in trial.measurements}))
    stopped = sum(trial.state == "stopped" for trial in trials)
    axes.set_title(
        f"{len(trials)} trials, {stopped} of them stopped early (×)", loc="left", fontsize=11
    )
    axes.set_xlabel("optimizer step", loc="left")
    axes.set_ylabel(f"{board.metric.capitalize()} on dev")


def _draw_layers(axes: Any, board: Leaderboard, colour: Colour) -> None:
    """Draws the teacher's and the best student's layers, and lines between those that match."""
    best, teacher = board.best, board.teacher
    assert best is not None
    matched = [int(layer) for layer in best.word_map.split("-")]
    boxes = {"edgecolor": colour("muted"), "linewidth": 1.2, "zorder": 3}

    def layer(x: float, y: int, text: str, *, chosen: bool) -> None:
        face = colour("best") if chosen else colour("paper")
        ink = colour("paper") if chosen else colour("ink")
        axes.scatter([x], [y], s=520, marker="s", facecolor=face, **boxes)
        axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=11, zorder=4)

    for place in range(teacher["layers"] + 1):
        layer(place, 1, str(place) if place else "E", chosen=place in matched)
    for place, source in enumerate(matched):
        x = place + (teacher["layers"] - best.depth) / 2
        layer(x, 0, str(place) if place else "E", chosen=True)
        axes.plot([x, source], [0, 1], color=colour("best"), linewidth=2, zorder=2)
    for y, name, layers, parameters, score in (
        (1.5, "teacher", teacher["layers"], teacher["parameters"], board.teacher_score),
        (-0.5, "best student", best.depth, best.parameters, best.score),
    ):
        text = f"{name}: {layers} layers, {parameters / 1e3:.0f} k weights, {score:.3f}"
        axes.text(teacher["layers"] / 2, y, text, ha="center", va="center", fontsize=10)
    axes.set_title("copied layers (E: embeddings)", fontsize=11)
    axes.set_xlim(-0.7, teacher["layers"] + 0.7)
    axes.set_ylim(-0.7, 1.7)
    axes.set_axis_off()


if __name__ == "__main__":
    main()
