"""Commands that show what a search found: best, report, watch and dashboard."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lkd_tune.cli.options import RunArgument

_PORT_HELP = "Port on this machine only. 0: any free one."


def best(run: RunArgument) -> None:
    """Show the best student so far, also while the search runs.

    Example:

        lkd-tune best runs/first
    """
    from lkd_tune.cli.printing.summary import warn_of_unreadable
    from lkd_tune.cli.printing.tables import show_best
    from lkd_tune.results.leaderboard_files import read_leaderboard
    from lkd_tune.storage.fetch import read_run

    folder = read_run(run)
    board = read_leaderboard(folder)
    warn_of_unreadable(folder)
    show_best(board)
    if board.best is None:
        raise typer.Exit(1)


def report(
    run: RunArgument,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", metavar="RUN", help="Another run to compare with; repeatable."),
    ] = None,
) -> None:
    """Write a run's report, RUN/report/report.html, and its plots as SVG and PNG.

    The page is one file that needs no network. It can be written while the search runs.

    Examples:

        lkd-tune report runs/first --open

        lkd-tune report runs/first --compare runs/second --compare runs/third
    """
    from lkd_tune.cli.printing.summary import warn_of_unreadable
    from lkd_tune.results.report.page import write_report
    from lkd_tune.storage.fetch import read_run, send_files

    folder = read_run(run)
    warn_of_unreadable(folder)
    path = write_report(folder, [read_run(other) for other in compare or []])
    send_files(folder, [file for file in folder.report.rglob("*") if file.is_file()])
    print(path)
    if folder.remote_uri is not None:
        print(f"{folder.remote_uri}/{path.relative_to(folder.path)}")
    if show and typer.launch(path.absolute().as_uri()) != 0:
        print("no browser could be opened", file=sys.stderr)


def watch(
    run: RunArgument,
    port: Annotated[int, typer.Option(help=_PORT_HELP)] = 8790,
    every: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="Seconds between updates.")
    ] = 10,
) -> None:
    """Show a run's report during the search, updated every few seconds.

    Example:

        lkd-tune watch runs/first
    """
    from lkd_tune.results.report.serve import serve_report
    from lkd_tune.results.summary import ray_dashboard_of
    from lkd_tune.storage.fetch import read_run

    if (dashboard := ray_dashboard_of(read_run(run).read_manifest())) is not None:
        _print_now(f"Ray's dashboard: {dashboard}")
    serve_report(lambda: read_run(run), port=port, every_s=every, notify=_print_now)


def dashboard(
    run: RunArgument,
    port: Annotated[int, typer.Option(help=_PORT_HELP)] = 8791,
) -> None:
    """Show a run's study in Optuna Dashboard, also while the search runs.

    Needs `pip install 'lkd-tune[dashboard]'`. The study is read-only there.

    Example:

        lkd-tune dashboard runs/first
    """
    from lkd_tune.results.report.optuna_dashboard import serve_dashboard
    from lkd_tune.storage.fetch import read_run

    serve_dashboard(lambda: read_run(run), port=port, notify=_print_now)


def _print_now(line: str) -> None:
    print(line, flush=True)
