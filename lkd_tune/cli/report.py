"""Commands that tell what a search found, and why: report, watch, dashboard and ablate."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run: a folder, or its s3:// or gs:// address.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to an app."""
    for command in (report, watch, dashboard, ablate):
        app.command()(command)


def report(
    run: RunArgument,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", metavar="RUN", help="A run to put beside it; repeatable."),
    ] = None,
) -> None:
    """Write a run's page, RUN/report/report.html, and its plots as SVG and PNG.

    One file that needs no network. Also while the search runs.

    Examples:

        lkd-tune report runs/first --open

        lkd-tune report runs/first --compare runs/second --compare runs/third
    """
    from lkd_tune.results.report.page import write_report
    from lkd_tune.storage.fetch import read_run, send_files

    folder = read_run(run)
    path = write_report(folder, [read_run(other) for other in compare or []])
    send_files(folder, [file for file in folder.report.rglob("*") if file.is_file()])
    print(path)
    if folder.home is not None:
        print(f"{folder.home}/{path.relative_to(folder.path)}")
    if show and typer.launch(path.absolute().as_uri()) != 0:
        print("no browser could be opened", file=sys.stderr)


def watch(
    run: RunArgument,
    port: Annotated[int, typer.Option(help="Of this machine only; 0: any free one.")] = 8790,
    every: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How often.")] = 10,
) -> None:
    """Show a run's page while it is searched; it is written anew every few seconds.

    Example:

        lkd-tune watch runs/first
    """
    from lkd_tune.results.report.serve import serve_report
    from lkd_tune.results.summary import dashboard_of
    from lkd_tune.storage.fetch import read_run

    def tell(line: str) -> None:
        print(line, flush=True)

    if (dashboard := dashboard_of(read_run(run).read_manifest())) is not None:
        tell(f"Ray's dashboard: {dashboard}")
    serve_report(lambda: read_run(run), port=port, every_s=every, tell=tell)


def dashboard(
    run: RunArgument,
    port: Annotated[int, typer.Option(help="Of this machine only; 0: any free one.")] = 8791,
) -> None:
    """Show a run's study in Optuna Dashboard; also while it is searched.

    It needs `pip install 'lkd-tune[dashboard]'`, and only shows: nothing can be changed there.

    Example:

        lkd-tune dashboard runs/first
    """
    from lkd_tune.results.report.optuna_dashboard import serve_dashboard
    from lkd_tune.storage.fetch import read_run

    def tell(line: str) -> None:
        print(line, flush=True)

    serve_dashboard(lambda: read_run(run), port=port, tell=tell)


def ablate(
    run: RunArgument,
    seeds: Annotated[
        int,
        typer.Option(min=1, help="1: the winner's own; more: so many of those after it."),
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A running Ray cluster; default: this machine."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    """Train the winner again without each of its loss terms: what is each of them worth?

    Writes RUN/ablation.json, which `lkd-tune report` shows. Cut off, it goes on when called again.
    The winner was chosen by its score with its own seed, so compare with others (--seeds 3).

    Examples:

        lkd-tune ablate runs/first

        lkd-tune ablate runs/first --seeds 3
    """
    from lkd_tune.storage.fetch import named_run
    from lkd_tune.tuning.ablation import ablate as ablate_run

    result = ablate_run(named_run(run), seeds=seeds, address=address, quiet=quiet)
    if result.facts is not None:
        _show(result.facts)
    for name, reason in result.failures.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    if result.interrupted or result.disk_full:
        why = "interrupted" if result.interrupted else f"stopped: {result.disk_full}"
        print(f"{why}; nothing is lost. Go on with: lkd-tune ablate {run} --seeds {seeds}")
        raise typer.Exit(130 if result.interrupted else 1)
    if result.facts is None:
        raise typer.Exit(1)


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"trial {facts['winner']}: {facts['metric']} on dev"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0),
                  header_style="dim")  # fmt: skip
    table.add_column("loss terms", no_wrap=True)
    for column in ("score", "± 95 %", "difference", "seeds"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in facts["entries"]:
        removed, spread = entry["removed"], entry["high"]
        table.add_row(
            f"without {removed}" if removed else "all",
            f"{entry['mean']:.3f}",
            f"{spread - entry['mean']:.3f}" if spread is not None else "",
            f"{entry['difference']:+.3f}" if removed else "",
            str(len(entry["seeds"])),
        )
    Console(highlight=False, markup=False).print(table)
