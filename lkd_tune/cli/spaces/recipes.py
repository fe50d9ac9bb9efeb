"""The command `recipes`: the published recipes, and the losses of one of them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lkd_tune.config.settings.recipes import Recipe

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
        for i, text in enumerate(_lines(recipe)):
            first = f"{'' if i else name:<{width}}"
            print(textwrap.fill(text, _WIDTH, initial_indent=first, subsequent_indent=" " * width))


def _show_one(name: str) -> None:
    """Prints a block `losses`, after what it compares as a comment."""
    import yaml

    from lkd_tune.config.errors import Problem, SpecError, did_you_mean
    from lkd_tune.config.settings.recipes import RECIPES

    recipe = RECIPES.get(name)
    if recipe is None:
        near = did_you_mean(name, [*RECIPES])
        raise SpecError(Problem("NAME", "", f"found {name!r}{near}; allowed: {', '.join(RECIPES)}"))
    for text in _lines(recipe):
        print(textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# "))
    block = {"losses": {"recipe": name, **recipe.losses}}
    # Each term in one line.
    print(yaml.safe_dump(block, default_flow_style=None, sort_keys=False, width=_WIDTH), end="")


def _lines(recipe: Recipe) -> list[str]:
    lines = [f"compares {recipe.compares}", f"source: {recipe.source}"]
    return lines + ([f"differs: {recipe.differs}"] if recipe.differs else [])
