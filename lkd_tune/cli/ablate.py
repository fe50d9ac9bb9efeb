"""The command `ablate`: what each loss term of the winner is worth."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Any

import typer

from lkd_tune.cli.options import AddressOption, QuietOption, RunArgument


def ablate(
    run: RunArgument,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Seeds for each term. 1: the winner's own seed; N: the N seeds after it."
        ),
    ] = 1,
    address: AddressOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train the winner again without each of its loss terms, to see what each term is worth.

    Writes RUN/ablation.json, which `lkd-tune report` shows. If it is interrupted, call it again to
    continue. The winner was chosen by the score with its own seed, so compare other seeds
    (--seeds 3).

    Examples:

        lkd-tune ablate runs/first

        lkd-tune ablate runs/first --seeds 3
    """
    from lkd_tune.storage.fetch import open_run
    from lkd_tune.tuning.ablation import ablate as ablate_run

    result = ablate_run(open_run(run), seeds=seeds, address=address, quiet=quiet)
    if result.summary is not None:
        _show(result.summary)
    for name, reason in result.failures.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    if result.interrupted or result.disk_full:
        why = "interrupted" if result.interrupted else f"stopped: {result.disk_full}"
        again = f"lkd-tune ablate {shlex.quote(run)} --seeds {seeds}"
        print(f"{why}; nothing is lost. Resume with: {again}")
        raise typer.Exit(130 if result.interrupted else 1)
    if result.summary is None:
        raise typer.Exit(1)


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"trial {summary['winner']}: {summary['metric']} on dev"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0),
                  header_style="dim")  # fmt: skip
    table.add_column("loss terms", no_wrap=True)
    for column in ("score", "± 95 %", "difference", "seeds"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in summary["entries"]:
        removed, high = entry["removed"], entry["high"]
        table.add_row(
            f"without {removed}" if removed else "all",
            f"{entry['mean']:.3f}",
            f"{high - entry['mean']:.3f}" if high is not None else "",
            f"{entry['difference']:+.3f}" if removed else "",
            str(len(entry["seeds"])),
        )
    Console(highlight=False, markup=False).print(table)
