"""The style of plots: colours for light and dark pages, and the files of a figure.

A figure is drawn in the colours of a light page. In the SVG for a page, each of these colours
becomes a CSS variable, so that a dark page can replace it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

# Name: (on a light page, on a dark page). The light ones must differ: they identify the variable.
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
# The colours of series in one plot, such as loss terms, in this order.
_SERIES = tuple(name for name in COLOURS if re.fullmatch(r"s\d+", name))
_LINE_STYLES = ("-", "--", ":", "-.")
# Colours of scores, from low to high.
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
_TIP = "tip:"
WIDTH = 5.6  # inches; text stays readable on a phone

_RC = {
    "font.size": 10,
    "svg.fonttype": "none",  # keep text as text: searchable, in the page's font
    "text.parse_math": False,  # a task's name may contain `$`
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
    """Returns a colour by name, as used in figures."""
    return COLOURS[name][0]


def series_style(number: int) -> dict[str, str]:
    """Returns the colour and line style of a series, as options of `Axes.plot`.

    When all colours are in use, they start again with another line style.

    Args:
        number: Number of the series, from 0.
    """
    rounds, index = divmod(number, len(_SERIES))
    return {
        "color": colour(_SERIES[index]),
        "linestyle": _LINE_STYLES[rounds % len(_LINE_STYLES)],
    }


def css_variables(*, dark: bool) -> str:
    """Returns the colours as CSS declarations."""
    pairs = {**COLOURS, **{f"q{i}": pair for i, pair in enumerate(_LEVELS)}}
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in pairs.items())


def style() -> Any:
    """Returns a context manager that sets the style; create and write figures in it."""
    return matplotlib.rc_context(_RC)


def new_figure(
    height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Returns a figure as wide as a page's column, and its axes; no display is needed.

    Args:
        height: In inches.
        rows: Number of rows of axes.
        columns: Number of columns of axes.
        options: Further options of `Figure.subplots`.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def score_colours(scores: Sequence[float]) -> tuple[ListedColormap, BoundaryNorm]:
    """Returns a colour map and a norm with a few levels from the lowest to the highest score."""
    low, high = min(scores), max(scores)
    if high - low < 1e-9:
        low, high = low - 0.5e-3, high + 0.5e-3
    n = len(_LEVELS)
    edges = [low + (high - low) * i / n for i in range(n + 1)]
    return ListedColormap([light for light, _ in _LEVELS]), BoundaryNorm(edges, n, clip=True)


def score_colour(score: float, scores: Sequence[float]) -> str:
    """Returns the colour of a score; `scores` set the range."""
    return _LEVELS[int(score_colours(scores)[1](score))][0]


def text_on(score: float, scores: Sequence[float]) -> str:
    """Returns a text colour that is readable on the score's colour."""
    return colour("paper" if int(score_colours(scores)[1](score)) >= 3 else "ink")


def add_colour_bar(figure: Figure, axes: Any, scores: Sequence[float], label: str) -> None:
    """Adds a colour bar for scores."""
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
    """Sets the labels of the axes and adds a grid."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, linewidth=0.6)


def add_tip(artist: Artist, text: str) -> None:
    """Gives a part of a figure a text that a browser shows when the mouse is over it."""
    artist.set_gid(_TIP + text)


def write_figure(figure: Figure, folder: Path, name: str) -> str:
    """Writes NAME.svg and NAME.png; returns the SVG element for a page, see `inline_svg`."""
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        text = _with_tips(out.getvalue())
        figure.savefig(folder / f"{name}.png", facecolor="white", dpi=200)
        svg = folder / f"{name}.svg"
        figure.savefig(svg, facecolor="white", metadata={"Date": None})
        svg.write_text(_with_tips(svg.read_text("utf-8")), "utf-8")
    return inline_svg(text, name)


def _with_tips(text: str) -> str:
    """Returns the text of an SVG file with the texts of `add_tip` as titles of their elements."""
    return re.sub(rf'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>", text)


def inline_svg(text: str, name: str) -> str:
    """Returns the SVG element for a page, from the text of an SVG file.

    Its colours are CSS variables, its ids start with `name`, and it has no size.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", head)
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r"url\(#", f"url(#{name}-", rest)
    rest = re.sub(r'xlink:href="#', f'href="#{name}-', rest)
    for light, variable in _VARIABLES.items():
        # Only in styles: the text of a figure may contain anything.
        rest = re.sub(rf"((?:fill|stroke): ){light}", rf"\1var(--{variable})", rest)
    return f'{head} aria-hidden="true">{rest}'
