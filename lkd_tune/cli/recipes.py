"""The command `recipes`: the published recipes, and the losses of one of them."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

_WIDTH = 100


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Print the losses of this recipe.")
    ] = None,
) -> None:
    """List the published recipes, or print the losses of one as YAML for a space file.

    Examples:

        lkd-tune recipes

        lkd-tune recipes soft_labels
    """
    if name is None:
        _show_all()
    else:
        _show_one(name)


def _show_all() -> None:
    from lkd_tune.config.settings.recipes import RECIPES

    width = max(map(len, RECIPES)) + 2
    for name, recipe in RECIPES.items():
        indent = " " * width
        print(textwrap.fill(f"{name:<{width}}{recipe.compares}", _WIDTH, subsequent_indent=indent))
        source = f"{indent}source: {recipe.source}"
        print(textwrap.fill(source, _WIDTH, subsequent_indent=indent))


def _show_one(name: str) -> None:
    """Prints a block `losses`, after what it compares as a comment."""
    import yaml

    from lkd_tune.config.errors import Problem, SpecError, did_you_mean
    from lkd_tune.config.settings.recipes import RECIPES

    recipe = RECIPES.get(name)
    if recipe is None:
        near = did_you_mean(name, [*RECIPES])
        raise SpecError(Problem("NAME", "", f"found {name!r}{near}; allowed: {', '.join(RECIPES)}"))
    for text in (recipe.compares, f"source: {recipe.source}"):
        print(textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# "))
    block = {"losses": {"recipe": name, **recipe.losses}}
    # Each term in one line.
    print(yaml.safe_dump(block, default_flow_style=None, sort_keys=False, width=_WIDTH), end="")
