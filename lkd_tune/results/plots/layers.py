"""Plots of layer maps: lines from student to teacher layers, and mean scores of layer pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import mean

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lkd_tune.records.trial_record import TrialRecord
from lkd_tune.results.leaderboard import Leaderboard
from lkd_tune.results.plots.style import (
    add_colour_bar,
    colour,
    new_figure,
    score_colour,
    text_on,
)

_MAX_DEPTHS = 4


def plot_layer_maps(
    board: Leaderboard, records: Sequence[TrialRecord], teacher_layers: int
) -> Figure | None:
    """Returns lines from student to teacher layers, a panel for each depth, the best on top."""
    maps = _maps(records)
    depths = _depths(maps, board)
    if not depths:
        return None
    scores = [score for _, _, score in maps]
    best = board.best
    figure, panels = new_figure(0.5 + 1.5 * len(depths), len(depths), squeeze=False)
    for axes, depth in zip(panels[:, 0], depths, strict=True):
        own = sorted((entry for entry in maps if _depth(entry) == depth), key=lambda e: e[2])
        for name, entries, score in own:
            chosen = best is not None and name == best.name
            for student, teacher in enumerate(entries):
                axes.plot(
                    [_place(student, depth, teacher_layers), teacher], [0, 1],
                    color=colour("best") if chosen else score_colour(score, scores),
                    linewidth=2.4 if chosen else 1.1, zorder=3 if chosen else 2,
                    linestyle="-", solid_capstyle="round",
                )  # fmt: skip
        for layer in range(teacher_layers + 1):
            _node(axes, layer, 1, layer)
        for layer in range(depth + 1):
            _node(axes, _place(layer, depth, teacher_layers), 0, layer)
        trials = len({name for name, _, _ in own})
        axes.set_title(f"depth {depth}, {trials} trial{'s' if trials > 1 else ''}")
        axes.set_ylim(-0.3, 1.3)
        axes.set_xlim(-0.5, teacher_layers + 0.5)
        axes.set_yticks([0, 1], labels=["student", "teacher"])
        axes.tick_params(length=0)
        axes.set_xticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    add_colour_bar(figure, panels, scores, board.metric)
    return figure


def plot_layer_pairs(
    board: Leaderboard, records: Sequence[TrialRecord], teacher_layers: int
) -> Figure | None:
    """Returns the mean score of the maps with each pair of layers, a panel for each depth."""
    maps = _maps(records)
    depths = _depths(maps, board)
    if len(maps) < 2 or not depths:
        return None
    means = {depth: pair_means([e for e in maps if _depth(e) == depth]) for depth in depths}
    scores = [score for own in means.values() for score in own.values()]
    rows = sum(depth + 1 for depth in depths)
    figure, panels = new_figure(
        0.9 + 0.4 * len(depths) + 0.27 * rows, len(depths), squeeze=False, sharex=True,
        height_ratios=[depth + 1 for depth in depths],
    )  # fmt: skip
    for axes, depth in zip(panels[:, 0], depths, strict=True):
        for (student, teacher), score in means[depth].items():
            face = score_colour(score, scores)
            axes.add_patch(Rectangle((teacher - 0.48, student - 0.46), 0.96, 0.92, facecolor=face))
            axes.text(
                teacher, student, _short(score), ha="center", va="center",
                fontsize=8 if teacher_layers <= 12 else 5, color=text_on(score, scores),
            )  # fmt: skip
        axes.set_xlim(-0.6, teacher_layers + 0.6)
        axes.set_ylim(depth + 0.6, -0.6)
        axes.set_yticks(range(depth + 1))
        axes.set_xticks(range(teacher_layers + 1))
        axes.set_title(f"depth {depth}")
        axes.set_ylabel("student")
        axes.tick_params(length=0)
    panels[-1, 0].set_xlabel("teacher layer (0: embeddings)")
    add_colour_bar(figure, panels, scores, f"mean {board.metric}")
    return figure


ScoredMap = tuple[str, tuple[int, ...], float]
"""A trial's name, its map (the teacher layer of each student layer) and its score."""


def pair_means(maps: Sequence[ScoredMap]) -> dict[tuple[int, int], float]:
    """Returns the mean score of the maps that contain each (student layer, teacher layer)."""
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for _, entries, score in maps:
        for pair in enumerate(entries):
            found[pair].append(score)
    return {pair: mean(scores) for pair, scores in found.items()}


def _maps(records: Sequence[TrialRecord]) -> list[ScoredMap]:
    """Returns the maps of complete trials; two of a trial whose word and layer maps differ."""
    maps: list[ScoredMap] = []
    for record in records:
        if not record.is_numbered or record.state != "complete" or record.score is None:
            continue
        used = record.spec.losses.needs_layers
        for entries in dict.fromkeys((record.spec.layer_map.word, record.spec.layer_map.layer)):
            if used and not isinstance(entries, str):  # a name: the map is drawn anew in each step
                maps.append((record.name, entries, record.score))
    return maps


def _depth(entry: ScoredMap) -> int:
    return len(entry[1]) - 1


def _depths(maps: Sequence[ScoredMap], board: Leaderboard) -> list[int]:
    """Returns the best trial's depth and the depths with most maps, sorted."""
    counts = Counter(map(_depth, maps))
    best = board.best.depth if board.best else None
    common = sorted(counts, key=lambda depth: (depth != best, -counts[depth], depth))
    return sorted(common[:_MAX_DEPTHS])


def _place(layer: int, depth: int, teacher_layers: int) -> float:
    return layer * teacher_layers / depth


def _node(axes, x: float, y: float, layer: int) -> None:  # type: ignore[no-untyped-def]
    axes.scatter([x], [y], s=130, color=colour("paper"), edgecolors=colour("muted"), zorder=4)
    axes.text(x, y, str(layer), ha="center", va="center_baseline", fontsize=8, zorder=5)


def _short(score: float) -> str:
    return f"{score:.2f}".replace("0.", ".", 1)
