"""The command `spaces`: the shipped space files, and the settings of any space file."""

from __future__ import annotations

from typing import Annotated

import typer

_WIDTH, _INDENT = 100, " " * 4


def spaces(
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting that a space file may have.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of space files, for editors.")
    ] = False,
) -> None:
    """List the shipped space files, or all settings with their defaults.

    Examples:

        lkd-tune spaces --settings

        lkd-tune spaces --schema > space.schema.json
    """
    if schema:
        _show_schema()
    elif settings:
        _show_settings()
    else:
        from lkd_tune.config.shipped import describe_space, shipped_spaces

        for name, path in shipped_spaces().items():
            print(f"{name:<20} {describe_space(path)}")


def _show_schema() -> None:
    import json

    from lkd_tune.config.schema import space_schema

    print(json.dumps(space_schema(), indent=2, ensure_ascii=False))


def _show_settings() -> None:
    """Prints each setting with its type and default, and its meaning below it."""
    import shutil
    import textwrap

    from lkd_tune.config.reference import settings_reference

    width = min(shutil.get_terminal_size((_WIDTH, 0)).columns, _WIDTH)
    for key, kind, default, meaning in settings_reference():
        rule = "needed" if default == "needed" else f"default {default}"
        for text, first in ((f"{key}: {kind}; {rule}", ""), (meaning, _INDENT)):
            print(textwrap.fill(text, width, initial_indent=first, subsequent_indent=_INDENT))
