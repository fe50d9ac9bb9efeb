"""How plots look: colours that follow the page from light to dark, and files of a figure.

A figure is drawn in the colours of a light page. Put into a page, each of these colours becomes a
CSS variable, so that the same picture reads well in the dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

# Name: (on a light page, on a dark one). All differ, since a picture is recoloured by them.
COLOURS = {
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#5b6670", "#9aa4af"),
    "grid": ("#dfe3e8", "#2b323b"),
    "paper": ("#fefefe", "#0e1217"),
    "faint": ("#a9b4bf", "#5a6570"),
    "best": ("#d1495b", "#ff7b8a"),
    "s1": ("#0b66c3", "#58a6ff"),
    "s2": ("#b35900", "#f0a04b"),
    "s3": ("#1a7f4b", "#46c26f"),
    "s4": ("#8250b8", "#c297ff"),
    "s5": ("#5d6b00", "#c3cf4a"),
    "s6": ("#a8326e", "#ff8cc6"),
    "s7": ("#0f7b8a", "#4fd1de"),
    "s8": ("#6e5a47", "#cbb59d"),
}
# The colours of series that are drawn together, such as loss terms, in turn.
_SERIES = tuple(name for name in COLOURS if re.fullmatch(r"s\d+", name))
_LINE_STYLES = ("-", "--", ":", "-.")
# From a low score to a high one.
_LEVELS = (
    ("#d3e1f1", "#1c2c40"),
    ("#adc8e6", "#24415f"),
    ("#82abd7", "#2f5b87"),
    ("#568cc5", "#4279b0"),
    ("#316dac", "#6199d3"),
    ("#184f8c", "#8cbcec"),
    ("#08356a", "#c0defd"),
)
_VARIABLES = {
    **{light: name for name, (light, _) in COLOURS.items()},
    **{light: f"q{i}" for i, (light, _) in enumerate(_LEVELS)},
}
WIDTH = 5.6  # inches; also on a phone the letters are then large enough

_RC = {
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: it can be found, and has the page's font
    "text.parse_math": False,  # a task may well be named `a$b$c`
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": COLOURS["muted"][0],
    "axes.labelcolor": COLOURS["ink"][0],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "text.color": COLOURS["ink"][0],
    "xtick.color": COLOURS["muted"][0],
    "ytick.color": COLOURS["muted"][0],
    "grid.color": COLOURS["grid"][0],
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def colour(name: str) -> str:
    """Returns a colour by name, as drawn."""
    return COLOURS[name][0]


def series_style(place: int) -> dict[str, str]:
    """Returns colour and line style of one series among others, as options of `Axes.plot`.

    The line style changes when all colours are in use.

    Args:
        place: Number of the series, from 0.
    """
    rounds, index = divmod(place, len(_SERIES))
    return {
        "color": colour(_SERIES[index]),
        "linestyle": _LINE_STYLES[rounds % len(_LINE_STYLES)],
    }


def css_variables(*, dark: bool) -> str:
    """Returns the colours as CSS declarations."""
    pairs = {**COLOURS, **{f"q{i}": pair for i, pair in enumerate(_LEVELS)}}
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in pairs.items())


def style() -> Any:
    """Returns a context in which figures are made and written."""
    return matplotlib.rc_context(_RC)


def new_figure(
    height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Returns a figure of a column's width with its axes; it belongs to no window system."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def score_colours(scores: Sequence[float]) -> tuple[ListedColormap, BoundaryNorm]:
    """Returns a map and a norm that colour scores in few steps, low to high."""
    low, high = min(scores), max(scores)
    if high - low < 1e-9:
        low, high = low - 0.5e-3, high + 0.5e-3
    n = len(_LEVELS)
    edges = [low + (high - low) * i / n for i in range(n + 1)]
    return ListedColormap([light for light, _ in _LEVELS]), BoundaryNorm(edges, n, clip=True)


def score_colour(score: float, scores: Sequence[float]) -> str:
    """Returns the colour of one score among others."""
    return _LEVELS[int(score_colours(scores)[1](score))][0]


def text_on(score: float, scores: Sequence[float]) -> str:
    """Returns a colour of text that can be read on a score's colour."""
    return colour("paper" if int(score_colours(scores)[1](score)) >= 3 else "ink")


def add_scale(figure: Figure, axes: Any, scores: Sequence[float], label: str) -> None:
    """Draws what the score colours stand for."""
    from matplotlib.cm import ScalarMappable

    cmap, norm = score_colours(scores)
    bar = figure.colorbar(
        ScalarMappable(norm, cmap), ax=axes, location="bottom", shrink=0.6, aspect=34, pad=0.03
    )
    ends = [norm.boundaries[0], norm.boundaries[-1]]
    bar.set_ticks([float(ends[0]), float(ends[1])], labels=[f"{end:.3f}" for end in ends])
    bar.set_label(label, labelpad=-8)
    bar.outline.set_visible(False)


def finish_axes(axes: Axes, x: str, y: str) -> None:
    """Names the axes and adds a grid."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, linewidth=0.6)


def write_figure(figure: Figure, folder: Path, name: str) -> str:
    """Writes NAME.svg and NAME.png, and returns the SVG to be put into a page.

    There its colours are variables, its ids begin with its name, and it has no size of its own.
    """
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        text = out.getvalue()
        for suffix, options in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 200})):
            figure.savefig(folder / f"{name}{suffix}", facecolor="white", **options)
    return inline_svg(text, name)


def inline_svg(text: str, name: str) -> str:
    """Returns a whole SVG file's text as a part of a page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", head)
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r"url\(#", f"url(#{name}-", rest)
    rest = re.sub(r'xlink:href="#', f'href="#{name}-', rest)
    for light, variable in _VARIABLES.items():
        # Only where a style names a colour, never in text, which may hold anything.
        rest = re.sub(rf"((?:fill|stroke): ){light}", rf"\1var(--{variable})", rest)
    return f'{head} aria-hidden="true">{rest}'
