"""The command `spaces`: the shipped space files, and the settings of any space file."""

from __future__ import annotations

from typing import Annotated

import typer


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
    """Prints a table of all settings: key, type, default, meaning."""
    from rich.console import Console
    from rich.table import Table

    from lkd_tune.config.reference import settings_reference

    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for column in ("type", "default", "meaning"):
        table.add_column(column)
    for row in settings_reference():
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
