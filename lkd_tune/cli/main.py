"""The command line: words on a terminal. What the commands do is done elsewhere.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lkd_tune import __version__
from lkd_tune.cli import cluster as cluster_cli
from lkd_tune.cli import compare as compare_cli
from lkd_tune.cli import doctor_command as doctor_cli
from lkd_tune.cli import export as export_cli
from lkd_tune.cli import report as report_cli
from lkd_tune.cli.completion import complete_task
from lkd_tune.cli.options import (
    AllowChangedOption,
    DataOption,
    NameOption,
    QuietOption,
    SetOption,
    SpaceOption,
    TaskOption,
    asked_spaces,
)

if TYPE_CHECKING:
    from lkd_tune.config.space import SearchSpace
    from lkd_tune.records.run import RunFolder

app = typer.Typer(
    name="lkd-tune",
    help="Finds the best small language models by distillation, on a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

AddressOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A running Ray cluster; default: this machine."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run: a folder, or its s3:// or gs:// address.")
]


def main() -> None:
    """Runs the command line; bad input is told in one screen and exits with 2."""
    from lkd_tune.config.errors import SpecError

    try:
        app()
    except SpecError as error:
        _refuse(error)
    except BrokenPipeError:
        sys.exit(141)  # as the shell tells it: `lkd-tune spaces | head`
    except Exception as error:
        from lkd_tune.files.disk import is_full_disk

        if not is_full_disk(error):
            raise
        told = str(error).strip().splitlines()[-1]
        print(f"lkd-tune: {told}; free some room and call it again", file=sys.stderr)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"lkd-tune {__version__}")
        raise typer.Exit


@app.command()
def search(
    space: SpaceOption = "",
    overrides: SetOption = None,
    run_dir: Annotated[
        str,
        typer.Option(metavar="DIR", help="Where runs are put: a folder, s3:// or gs://…."),
    ] = "",
    name: NameOption = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run instead.")
    ] = None,
    allow_changed: AllowChangedOption = False,
    task: TaskOption = None,
    data: DataOption = None,
    address: AddressOption = None,
    quiet: QuietOption = False,
) -> None:
    """Search a space and keep the best students.

    Ctrl-C stops and keeps everything; `--resume` goes on.

    Examples:

        lkd-tune search --space layer_map.yaml

        lkd-tune search --space layer_map.yaml --set search.trials=32 --name first

        lkd-tune search --space glue.yaml --task glue/all --data glue_data --name glue

        lkd-tune search --resume runs/first --set search.trials=64

        lkd-tune search --space glue.yaml --run-dir s3://bucket/runs --name first

        lkd-tune search --resume runs/first --space mine.yaml --allow-changed
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.storage.fetch import named_run

    if allow_changed and not (space and (resume or task)):
        raise SpecError(Problem("--allow-changed", "", "goes with --resume RUN and --space FILE"))
    spaces = asked_spaces(space, overrides, name, run_dir, resume, task, data)
    if resume is not None:
        from lkd_tune.tuning.tuner import resume_search

        result = resume_search(
            named_run(resume),
            address=address,
            quiet=quiet,
            overrides=[] if space else overrides or [],
            changed=spaces.get(""),
            allow_changed=allow_changed,
        )
    else:
        from lkd_tune.config.shipped import run_name
        from lkd_tune.tuning.tuner import run_search

        run = named_run(f"{run_dir or 'runs'}/{name or run_name(space)}")
        if "" not in spaces:
            search_several(spaces, run, address, quiet=quiet, allow_changed=allow_changed)
            return
        result = run_search(spaces[""], run, address=address, quiet=quiet)
    finish(result)


@app.command()
def check(space: SpaceOption, overrides: SetOption = None) -> None:
    """Check a space file, its teacher and its data without starting anything.

    Prints what is searched and how large the space is.

    Example:

        lkd-tune check --space layer_map.yaml --set student.depth=4
    """
    from lkd_tune.cli.tables import show_space
    from lkd_tune.config.shipped import find_space
    from lkd_tune.config.space import load_space
    from lkd_tune.distillation.checks import check_space, read_data

    loaded = load_space(find_space(space), overrides or [])
    layers = check_space(loaded)
    read_data(loaded)
    show_space(loaded, layers)


@app.command()
def distill(
    spec: Annotated[
        str,
        typer.Option(metavar="FILE", help="A trial's spec.json or a student.json; also s3://…."),
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write the student.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: the spec's resources.cpus.")
    ] = None,
) -> None:
    """Run exactly one distillation, here and without a search.

    Example:

        lkd-tune distill --spec runs/first/students/0007/student.json --to again
    """
    from lkd_tune.config.trial import read_trial_spec
    from lkd_tune.distillation.once import distill_here, refuse_used_folder
    from lkd_tune.storage.fetch import local_file

    trial = read_trial_spec(local_file(spec))
    refuse_used_folder(to)
    from lkd_tune.cli.progress import show_measurement, shown_steps
    from lkd_tune.distillation.bad_examples import DivergedError

    try:
        with shown_steps() as show:
            trained = distill_here(trial, to=to, threads=threads, on_progress=show)
            for metric, measurement in trained:
                show_measurement(measurement, metric)
    except DivergedError as error:
        print(f"lkd-tune: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if to is not None:
        print(f"student: {to}")


@app.command()
def best(run: RunArgument) -> None:
    """Show the best student so far; also while the search runs.

    Example:

        lkd-tune best runs/first
    """
    from lkd_tune.cli.tables import show_best
    from lkd_tune.results.leaderboard import read_leaderboard
    from lkd_tune.storage.fetch import read_run

    board = read_leaderboard(read_run(run))
    show_best(board)
    if board.best is None:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, address or hub id.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="A known task; default: the one the student was distilled for.",
            autocompletion=complete_task,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Score this file instead of the dev split.")
    ] = None,
    split: Annotated[str, typer.Option(help="dev or test.")] = "dev",
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what is predicted for each row: JSON lines."),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Score a model on a task's data.

    Examples:

        lkd-tune evaluate students/1

        lkd-tune evaluate students/1 --split test

        lkd-tune evaluate bert-base-cola --task cola --data dev.tsv

        lkd-tune evaluate my-model --data mine.csv --set task.columns.text=sentence

        lkd-tune evaluate students/1 --predictions dev.jsonl
    """
    from lkd_tune.cli.tables import show_metrics
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.evaluation.task import evaluation_task, write_rows

    if split not in ("dev", "test"):
        raise SpecError(Problem("--split", "", f"found {split!r}; allowed: dev, test"))
    settings = evaluation_task(model, task, data, split, overrides or [])
    from lkd_tune.evaluation.scoring import evaluate_model, predict_rows

    if predictions is None:
        scores = evaluate_model(model, settings, splits=(split,))[split]
    else:
        scores, rows = predict_rows(model, settings, split)
        write_rows(predictions, rows)
    show_metrics(settings, split, scores)


@app.command()
def spaces(
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting a space file may have.")
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
    from lkd_tune.config.reference import show_schema, show_settings
    from lkd_tune.config.shipped import describe_space, shipped_spaces

    if schema:
        show_schema()
        return
    if settings:
        show_settings()
        return
    for name, path in shipped_spaces().items():
        print(f"{name:<20} {describe_space(path)}")


export_cli.register(app)
report_cli.register(app)
compare_cli.register(app)
doctor_cli.register(app)
cluster_cli.register(app)


def finish(result) -> None:  # type: ignore[no-untyped-def]  # its type is behind a heavy import
    """Writes and shows what came out of a search, and exits as it ended."""
    from collections import Counter

    from lkd_tune.cli.tables import place_of, show_leaderboard
    from lkd_tune.results.leaderboard import write_leaderboard
    from lkd_tune.storage.fetch import send_files

    board = write_leaderboard(result.run)
    send_files(result.run, [result.run.leaderboard_csv, result.run.leaderboard_json])
    show_leaderboard(board)
    where = place_of(result.run)
    resume = f"lkd-tune search --resume {where}"
    if result.interrupted:
        print(f"interrupted; nothing is lost. Go on with: {resume}")
        raise typer.Exit(130)
    if result.disk_full:
        print(f"stopped: {result.disk_full}. Nothing is lost. Free some, then: {resume}")
        raise typer.Exit(1)
    if result.all_failed:
        for reason, number in Counter(result.failures.values()).most_common(5):
            print(f"{number} trials failed: {reason}", file=sys.stderr)
        print(f"tracebacks: {where}/trials/*/error.txt", file=sys.stderr)
        raise typer.Exit(1)
    if result.best is not None:
        print(f"export it: lkd-tune export {where} --to DIR")
        print(f"see all of it: lkd-tune report {where} --open")
    if result.out_of_time:
        print(f"the time budget is used up. For more: {resume} --set search.time_budget=MINUTES")


def search_several(
    spaces: Mapping[str, SearchSpace],
    run: RunFolder,
    address: str | None,
    *,
    quiet: bool,
    allow_changed: bool,
) -> None:
    """Searches several tasks in turn, shows the table of all, and exits as the last one ended."""
    from lkd_tune.cli.tables import place_of
    from lkd_tune.cli.task_table import show_task_table
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
    print(f"written to {place_of(run)}/{path.name}")
    left = {end.left for end in ends.values()}
    if "interrupted" in left:
        print("interrupted; nothing is lost. The same command, with --name, goes on.")
        raise typer.Exit(130)
    for end in ends.values():
        if end.result is not None and end.result.disk_full:
            print(f"stopped: {end.result.disk_full}. The same command, with --name, goes on.")
    if left != {""}:
        raise typer.Exit(2 if "refused" in left else 1)


def _refuse(error: Exception) -> NoReturn:
    for problem in getattr(error, "problems", [error]):
        print(f"lkd-tune: {problem}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
