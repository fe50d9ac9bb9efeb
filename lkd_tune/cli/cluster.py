"""Commands that talk to a cluster's job server: submit, jobs, logs, stop."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from lkd_tune.cli.options import (
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
    from lkd_tune.jobs.client import JobServer

ServerOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server, http://HEAD:8265.",
    ),
]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Name of a job, as `lkd-tune jobs` lists it.")
]
_LOCAL_SERVER = "http://127.0.0.1:8265"


def submit(
    space: SpaceOption = "",
    address: ServerOption = _LOCAL_SERVER,
    overrides: SetOption = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for runs that all nodes share, or its s3:// or gs:// address.",
        ),
    ] = None,
    name: NameOption = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Resume this run of the cluster instead of starting one."),
    ] = None,
    allow_changed: AllowChangedOption = False,
    task: TaskOption = None,
    data: DataOption = None,
    quiet: QuietOption = False,
    ship: Annotated[
        bool, typer.Option("--ship", help="Upload local data and models, up to 400 MiB.")
    ] = False,
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="LKD_TUNE_CACHE on the cluster.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the search until it ends, and exit as it does.")
    ] = False,
) -> None:
    """Submit a search to a Ray cluster, where it runs without this machine.

    Returns when the search has started, or says why it can't start. If the run exists, for example
    after its driver was lost, and its space is the same, the job resumes it.

    Examples:

        lkd-tune submit --space layer_map.yaml --address http://head:8265 --run-dir /shared/runs

        lkd-tune submit --space mine.yaml --ship --run-dir /shared/runs --name first --wait

        lkd-tune submit --space glue.yaml --task glue/all --run-dir /shared/runs --name glue

        lkd-tune submit --resume /shared/runs/first --set search.trials=64
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.jobs.client import START_S, JobServer

    if (allow_changed or ship) and not space:
        option = "--ship" if ship else "--allow-changed"
        raise SpecError(Problem(option, "", "needs --space FILE"))
    spaces = load_requested_spaces(space, overrides, name, run_dir, resume, task, data)
    if resume is not None:
        run = resume
    else:
        from lkd_tune.config.shipped import run_name

        if run_dir is None:
            message = "is needed: an absolute folder that every node of the cluster sees"
            raise SpecError(Problem("--run-dir", "", message))
        run = os.path.join(run_dir, run_name(space, name))
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
    waiting = server.wait_for_start(job)
    if waiting is not None:
        status = f"{waiting.state}; {waiting.message}"
        print(f"the search has not started within {START_S:g} s: {status}".strip())
    if not wait:
        print(f"follow it: lkd-tune logs {job} -f --address {address}")
        return
    _follow(server, job, address)


def jobs(address: ServerOption = _LOCAL_SERVER) -> None:
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
        bool,
        typer.Option("--follow", "-f", help="Show the search until it ends, and exit as it does."),
    ] = False,
    address: ServerOption = _LOCAL_SERVER,
) -> None:
    """Show the output of a submitted search.

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


def stop(job: JobArgument, address: ServerOption = _LOCAL_SERVER) -> None:
    """Stop a submitted search as Ctrl-C would: nothing is lost, and it can be resumed.

    Example:

        lkd-tune stop first-3f9a21 --address http://head:8265
    """
    from lkd_tune.jobs.client import JobServer

    server = JobServer(address)
    ended = server.stop(job)
    print(f"{ended.name}: {ended.state}")
    if ended.state != "SUCCEEDED":
        print(f"resume with: {_resume_command(ended.run, address)}")


def _follow(server: JobServer, job: str, address: str) -> None:
    """Shows a search as it would look here until it ends, and exits with its driver's code."""
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.tuning.progress.view import LogView

    run = server.job(job).run
    again = f"follow it again: lkd-tune logs {job} -f --address {address}"
    try:
        with LogView(live=True) as view:
            for text in server.logs(job, follow=True):
                view.feed(text)
    except KeyboardInterrupt:
        print(f"\nthe search continues; {again}")
        print(f"stop it: lkd-tune stop {job} --address {address}")
        raise typer.Exit(130) from None
    except SpecError as error:
        resume = _resume_command(run, address)
        message = f"{again}; if the head was lost, resume with: {resume}"
        raise SpecError([*error.problems, Problem("", "", message)]) from None
    ended = server.job(job)
    if ended.state == "SUCCEEDED":
        print(f"run: {ended.run}")
        return
    print(f"{job}: {ended.state}; resume with: {_resume_command(ended.run, address)}")
    if ended.state == "FAILED" and ended.exit_code is None:
        print(f"its driver was lost: {ended.message}")
    raise typer.Exit(130 if ended.state == "STOPPED" else ended.exit_code or 1)


def _resume_command(run: str, address: str) -> str:
    return f"lkd-tune submit --resume {shlex.quote(run)} --address {address}"
