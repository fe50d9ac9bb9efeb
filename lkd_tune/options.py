"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from lkd_tune.completion import complete_setting, complete_space

SpaceOption = Annotated[
    str,
    typer.Option(
        "--space",
        metavar="FILE",
        help="Space file: a path, or a shipped one.",
        autocompletion=complete_space,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override any setting; repeatable.",
        autocompletion=complete_setting,
    ),
]
