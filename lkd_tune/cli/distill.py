"""The command `distill`: one distillation without a search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def distill(
    spec: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A trial's spec.json or a student.json; a path or an address."
        ),
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder for the student.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: the spec's resources.cpus.")
    ] = None,
) -> None:
    """Run a single distillation in this process, without a search.

    Example:

        lkd-tune distill --spec runs/first/students/0007/student.json --to again
    """
    from lkd_tune.config.trial import read_trial_spec
    from lkd_tune.records.student_file import check_empty
    from lkd_tune.storage.fetch import local_file

    trial = read_trial_spec(local_file(spec))
    check_empty(to)
    from lkd_tune.cli.printing.progress import show_measurement, step_status
    from lkd_tune.distillation.bad_examples import DivergedError
    from lkd_tune.distillation.run import distill_locally

    try:
        with step_status() as show:
            trained = distill_locally(trial, to=to, threads=threads, on_progress=show)
            for metric, measurement in trained:
                show_measurement(measurement, metric)
    except DivergedError as error:
        print(f"lkd-tune: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if to is not None:
        print(f"student: {to}")
