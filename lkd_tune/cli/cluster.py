"""Commands that talk to a cluster's job server: submit, jobs, logs, stop."""

from __future__ import annotations

import os
from typing import Annotated

import typer

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

ServerOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server, http://HEAD:8265.",
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="As `lkd-tune jobs` lists it.")]
_HERE = "http://127.0.0.1:8265"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (submit, jobs, logs, stop):
        app.command()(command)


def submit(
    space: SpaceOption = "",
    address: ServerOption = _HERE,
    overrides: SetOption = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where runs are put: a folder that all nodes share, s3:// or gs://….",
        ),
    ] = None,
    name: NameOption = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run on the cluster instead.")
    ] = None,
    allow_changed: AllowChangedOption = False,
    task: TaskOption = None,
    data: DataOption = None,
    quiet: QuietOption = False,
    ship: Annotated[
        bool, typer.Option("--ship", help="Take local data and models along (up to 400 MiB).")
    ] = False,
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="LKD_TUNE_CACHE on the cluster.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the search as if it ran here, and exit as it does.")
    ] = False,
) -> None:
    """Send a search to a Ray cluster; it goes on when this machine is off.

    Returns when the search has begun, or says why it can't. If the run is there already, as after
    the loss of its driver, the job goes on with it, if the space is the same.

    Examples:

        lkd-tune submit --space layer_map.yaml --address http://head:8265 --run-dir /shared/runs

        lkd-tune submit --space mine.yaml --ship --run-dir /shared/runs --name first --wait

        lkd-tune submit --space glue.yaml --task glue/all --run-dir /shared/runs --name glue

        lkd-tune submit --resume /shared/runs/first --set search.trials=64
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.jobs.client import BEGIN_S, JobServer

    if (allow_changed or ship) and not space:
        option = "--ship" if ship else "--allow-changed"
        raise SpecError(Problem(option, "", "goes with --space FILE"))
    spaces = asked_spaces(space, overrides, name, run_dir, resume, task, data)
    if resume is not None:
        run = resume
    else:
        from lkd_tune.config.shipped import run_name

        if run_dir is None:
            message = "is needed: an absolute folder that every node of the cluster sees"
            raise SpecError(Problem("--run-dir", "", message))
        run = os.path.join(run_dir, name or run_name(space))
    server = JobServer(address)
    job = server.submit(
        run=run,
        spaces=spaces,
        resume=resume is not None,
        overrides=[] if spaces else overrides or [],
        allow_changed=allow_changed,
        quiet=quiet,
        ship=ship,
        cache=cache,
    )
    print(f"job: {job}\nrun: {run}", flush=True)
    waiting = server.wait_for_begin(job)
    if waiting is not None:
        print(f"after {BEGIN_S:g} s it has not begun: {waiting.state}; {waiting.message}".strip())
    if not wait:
        print(f"follow it: lkd-tune logs {job} -f --address {address}")
        return
    _follow(server, job, address)


def jobs(address: ServerOption = _HERE) -> None:
    """List the searches that were submitted to a cluster.

    Example:

        lkd-tune jobs --address http://head:8265
    """
    from lkd_tune.jobs.client import JobServer

    found = JobServer(address).jobs()
    if not found:
        print("no searches were submitted")
        return
    width = max(len(job.name) for job in found)
    print(f"{'job':<{width}}  {'state':<9}  {'started':<25}  run")
    for job in found:
        print(f"{job.name:<{width}}  {job.state:<9}  {job.started or '':<25}  {job.run}")


def logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the search ends.")
    ] = False,
    address: ServerOption = _HERE,
) -> None:
    """Show what a submitted search printed; with -f, as if it ran here, and exit as it does.

    Example:

        lkd-tune logs first-3f9a21 -f --address http://head:8265
    """
    from lkd_tune.jobs.client import JobServer

    server = JobServer(address)
    if follow:
        _follow(server, job, address)
        return
    from lkd_tune.tuning.progress.view import LogView

    with LogView(live=False) as view:
        for text in server.logs(job):
            view.feed(text)


def stop(job: JobArgument, address: ServerOption = _HERE) -> None:
    """Stop a submitted search as Ctrl-C would: nothing is lost, and it can go on.

    Example:

        lkd-tune stop first-3f9a21 --address http://head:8265
    """
    from lkd_tune.jobs.client import JobServer

    server = JobServer(address)
    ended = server.stop(job)
    print(f"{ended.name}: {ended.state}")
    if ended.state != "SUCCEEDED":
        print(f"go on with: {_resume(ended.run, address)}")


def _follow(server, job: str, address: str) -> None:  # type: ignore[no-untyped-def]
    """Shows a search as it would be seen here until it ends, and exits with its driver's code."""
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.tuning.progress.view import LogView

    run = server.job(job).run
    again = f"follow it again: lkd-tune logs {job} -f --address {address}"
    try:
        with LogView(live=True) as view:
            for text in server.logs(job, follow=True):
                view.feed(text)
    except KeyboardInterrupt:
        print(f"\nthe search goes on; {again}")
        print(f"stop it: lkd-tune stop {job} --address {address}")
        raise typer.Exit(130) from None
    except SpecError as error:
        message = f"{again}; or, if the head was lost, go on with: {_resume(run, address)}"
        raise SpecError([*error.problems, Problem("", "", message)]) from None
    ended = server.job(job)
    if ended.state == "SUCCEEDED":
        print(f"run: {ended.run}")
        return
    print(f"{job}: {ended.state}; go on with: {_resume(ended.run, address)}")
    if ended.state == "FAILED" and ended.exit_code is None:
        print(f"its driver was lost: {ended.message}")
    raise typer.Exit(130 if ended.state == "STOPPED" else ended.exit_code or 1)


def _resume(run: str, address: str) -> str:
    return f"lkd-tune submit --resume {run} --address {address}"
