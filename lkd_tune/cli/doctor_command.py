"""The command that examines an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(doctor)


def doctor(
    run_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where runs are to be put.")] = Path(
        "runs"
    ),
) -> None:
    """Tell what is wrong with this environment, and what to do about it.

    Exits with 1 if a search can't run here. The first time DeepSpeed's op is compiled, which takes
    a minute.

    Example:

        lkd-tune doctor
    """
    from lkd_tune.cli.doctor import examine

    findings = examine(run_dir)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{finding.state:<5} {finding.check:<{width}}  {finding.found}")
        if finding.remedy:
            print(f"      {'':<{width}}  -> {finding.remedy}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)
