"""The command that takes students out of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from lkd_tune.export.formats import Conversion


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(export)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder, or its address.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    top: Annotated[int, typer.Option(min=1, help="How many students.")] = 1,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAMES",
            help="hf (always there), onnx, onnx-int8 and torch-export, with commas between.",
        ),
    ] = "hf",
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Upload them, as NAME or NAME-1, NAME-2, …; private."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push-to-hub: for everyone to see.")
    ] = False,
) -> None:
    """Copy the best students out of a run: DIR/1 is the best.

    Each is a Hugging Face folder with a model card (README.md) and checksums (SHA256SUMS). Other
    formats lie beside its weights. Each is compared with PyTorch on text of the dev split, scored
    and timed; a logit that differs by more than 1e-3 ends the export, but for int8.

    Examples:

        lkd-tune export runs/first --top 3 --to students

        lkd-tune export runs/first --to student --format onnx,onnx-int8,torch-export

        lkd-tune export runs/first --to student --push-to-hub my-student
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.export.formats import FormatError, parse_formats, read_conversion
    from lkd_tune.export.hub import HubError, prepare_repositories, push_student
    from lkd_tune.export.students import export_students
    from lkd_tune.storage.fetch import read_run

    if public and push_to_hub is None:
        raise SpecError(Problem("--public", "", "goes with --push-to-hub NAME"))
    chosen = parse_formats(formats)
    try:
        # Before the work: what the hub would refuse is told at once.
        names = prepare_repositories(push_to_hub, top, public=public) if push_to_hub else []
        folders = export_students(read_run(run, students=True), top, to, formats=chosen)
        for folder in folders:
            print(folder)
            conversion = read_conversion(folder)
            if conversion is not None:
                _show(conversion)
        for folder, name in zip(folders, names, strict=False):  # no names: nothing to upload
            print(push_student(folder, name, public=public))
    except FormatError as error:
        _end(f"--format: {error}")
    except HubError as error:
        _end(f"--push-to-hub: {error}")


def _end(message: str) -> NoReturn:
    print(f"lkd-tune: {message}", file=sys.stderr)
    raise typer.Exit(1) from None


def _show(found: Conversion) -> None:
    from rich.table import Table

    from lkd_tune.cli.tables import terminal
    from lkd_tune.export.formats import FORMATS

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column("format", no_wrap=True)
    for column in ("MB", f"{found.metric}, dev", f"ms for {found.length} tokens", "logits differ"):
        table.add_column(column, justify="right", no_wrap=True)
    for facts in found.formats:
        table.add_row(
            FORMATS[facts.format].title,
            f"{facts.size_mb:.1f}",
            f"{facts.metrics[found.metric]:.4f}",
            f"{facts.latency_ms:.1f}",
            "" if facts.difference is None else f"{facts.difference:.1e}",
        )
    terminal().print(table)
