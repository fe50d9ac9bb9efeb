"""The command `search`, and how the end of a search is shown."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lkd_tune.cli.options import (
    AddressOption,
    AllowChangedOption,
    DataOption,
    NameOption,
    QuietOption,
    SetOption,
    SpaceOption,
    TaskOption,
    load_requested_spaces,
)

if TYPE_CHECKING:
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.records.run import RunFolder
    from lkd_tune.tuning.tuner import SearchResult


def search(
    space: SpaceOption = "",
    overrides: SetOption = None,
    run_dir: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder for runs, or its s3:// or gs:// address. Default: runs.",
        ),
    ] = "",
    name: NameOption = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Resume this run instead of starting one.")
    ] = None,
    allow_changed: AllowChangedOption = False,
    task: TaskOption = None,
    data: DataOption = None,
    address: AddressOption = None,
    quiet: QuietOption = False,
) -> None:
    """Search a space and keep the best students.

    Ctrl-C stops the search and keeps everything; `--resume` continues it.

    Examples:

        lkd-tune search --space layer_map.yaml

        lkd-tune search --space layer_map.yaml --set search.trials=32 --name first

        lkd-tune search --space glue.yaml --task glue/all --data glue_data --name glue

        lkd-tune search --resume runs/first --set search.trials=64

        lkd-tune search --space glue.yaml --run-dir s3://bucket/runs --name first

        lkd-tune search --resume runs/first --space mine.yaml --allow-changed
    """
    with _told_if_interrupted():
        from lkd_tune.config.errors import Problem, SpecError
        from lkd_tune.storage.fetch import open_run

        if allow_changed and not (space and (resume or task)):
            raise SpecError(Problem("--allow-changed", "", "needs --resume RUN and --space FILE"))
        spaces = load_requested_spaces(space, overrides, name, run_dir, resume, task, data)
        if resume is not None:
            from lkd_tune.tuning.tuner import resume_search

            result = resume_search(
                open_run(resume),
                address=address,
                quiet=quiet,
                overrides=[] if space else overrides or [],
                changed=spaces.get(""),
                allow_changed=allow_changed,
            )
            raise typer.Exit(show_result(result))
        from lkd_tune.config.shipped import run_name

        run = open_run(f"{run_dir or 'runs'}/{run_name(space, name)}")
        if "" not in spaces:
            code = search_several(spaces, run, address, quiet=quiet, allow_changed=allow_changed)
            raise typer.Exit(code)
        from lkd_tune.tuning.tuner import run_search

        result = run_search(spaces[""], run, address=address, quiet=quiet)
        raise typer.Exit(show_result(result))


@contextmanager
def _told_if_interrupted() -> Iterator[None]:
    """Ends with a message if a signal arrives while libraries are loaded, before the search begins.

    After that, the search's guard handles signals.
    """
    from lkd_tune.config.errors import SearchEndedError

    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        message = "interrupted. Nothing is lost. Use the same command again"
        raise SearchEndedError(message, 130) from None
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def show_result(result: SearchResult) -> int:
    """Writes and prints the leaderboard, and prints how the search ended.

    Returns:
        The exit code: 0; 1 if all trials failed or the disk is full; 130 if interrupted.
    """
    from collections import Counter

    from lkd_tune.cli.printing.summary import run_place
    from lkd_tune.cli.printing.tables import show_leaderboard
    from lkd_tune.results.leaderboard_files import write_leaderboard
    from lkd_tune.storage.fetch import send_files

    board = write_leaderboard(result.run)
    send_files(result.run, [result.run.leaderboard_csv, result.run.leaderboard_json])
    show_leaderboard(board)
    where = shlex.quote(run_place(result.run))
    resume = f"lkd-tune search --resume {where}"
    if result.interrupted:
        print(f"interrupted; nothing is lost. Resume with: {resume}")
        return 130
    if result.disk_full:
        print(f"stopped: {result.disk_full}. Nothing is lost. Free some disk space, then: {resume}")
        return 1
    if result.all_failed:
        for reason, number in Counter(result.failures.values()).most_common(5):
            print(f"{number} trials failed: {reason}", file=sys.stderr)
        print(f"tracebacks: {where}/trials/*/error.txt", file=sys.stderr)
        return 1
    if result.best is not None:
        print(f"export it: lkd-tune export {where} --to DIR")
        print(f"see the report: lkd-tune report {where} --open")
    if result.out_of_time:
        print(f"the time budget is used up. For more: {resume} --set search.time_budget=MINUTES")
    return 0


def search_several(
    spaces: Mapping[str, SearchSpace],
    run: RunFolder,
    address: str | None,
    *,
    quiet: bool,
    allow_changed: bool,
) -> int:
    """Searches several tasks one after the other; writes and prints the table of all.

    Returns:
        The exit code: 0; 2 if a task was refused; 1 if one has no student or the disk is full; 130
        if interrupted.
    """
    from lkd_tune.cli.printing.summary import run_place
    from lkd_tune.cli.printing.task_table import show_task_table
    from lkd_tune.results.task_table import read_task_table, write_task_table
    from lkd_tune.storage.fetch import send_files
    from lkd_tune.tuning.multi_task import search_tasks

    ends = search_tasks(spaces, run, address=address, quiet=quiet, allow_changed=allow_changed)
    table = read_task_table(
        {task: end.run for task, end in ends.items()},
        {task: end.left for task, end in ends.items()},
    )
    path = run.path / "tasks.json"
    write_task_table(table, path)
    show_task_table(table)
    send_files(run, [path])
    print(f"written to {run_place(run)}/{path.name}")
    left = {end.left for end in ends.values()}
    if "interrupted" in left:
        print("interrupted; nothing is lost. Resume with the same command and --name.")
        return 130
    for end in ends.values():
        if end.result is not None and end.result.disk_full:
            print(f"stopped: {end.result.disk_full}. Resume with the same command and --name.")
    if left != {""}:
        return 2 if "refused" in left else 1
    return 0
