"""The command `export`: copies of a run's best students."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lkd_tune.cli.options import RunArgument

if TYPE_CHECKING:
    from lkd_tune.export.formats import Conversion


def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    top: Annotated[int, typer.Option(min=1, help="Number of students.")] = 1,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAMES",
            help="hf (always written), onnx, onnx-int8, torch-export; separated by commas.",
        ),
    ] = "hf",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the run's data files, if they have been moved."
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Upload to the Hugging Face hub as NAME, or as NAME-1, NAME-2, …; private.",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push-to-hub: create public repositories.")
    ] = False,
) -> None:
    """Copy the best students of a run to DIR/1, DIR/2, …; DIR/1 is the best.

    Each is a Hugging Face folder with a model card (README.md) and checksums (SHA256SUMS). Other
    formats are added to the same folder. Each format is scored, timed and compared with PyTorch on
    text of the dev split. If a logit differs by more than 1e-3, the export fails, except for int8.

    Examples:

        lkd-tune export runs/first --top 3 --to students

        lkd-tune export runs/first --to student --format onnx,onnx-int8,torch-export

        lkd-tune export runs/first --to student --push-to-hub my-student
    """
    from lkd_tune.cli.printing.summary import warn_of_unreadable
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.export.formats import FormatError, parse_formats, read_conversion
    from lkd_tune.export.hub import HubError, prepare_repositories, push_student
    from lkd_tune.export.students import export_students
    from lkd_tune.storage.fetch import read_run

    if public and push_to_hub is None:
        raise SpecError(Problem("--public", "", "needs --push-to-hub NAME"))
    chosen = parse_formats(formats)
    try:
        # First, so that what the hub refuses is reported before the work.
        names = prepare_repositories(push_to_hub, top, public=public) if push_to_hub else []
        source = read_run(run, students=True)
        warn_of_unreadable(source)
        folders = export_students(
            source, top, to, formats=chosen, data=data, to_publish=bool(names)
        )
        for folder in folders:
            print(folder)
            conversion = read_conversion(folder)
            if conversion is not None:
                _show(conversion)
        for folder, name in zip(folders, names, strict=False):  # without names, no upload
            print(push_student(folder, name, public=public))
    except FormatError as error:
        _fail(f"--format: {error}")
    except HubError as error:
        _fail(f"--push-to-hub: {error}")


def _fail(message: str) -> NoReturn:
    print(f"lkd-tune: {message}", file=sys.stderr)
    raise typer.Exit(1) from None


def _show(found: Conversion) -> None:
    from rich.table import Table

    from lkd_tune.cli.printing.tables import terminal
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
    if found.device is not None:
        print(f"timed in turns on {found.device}")
    if found.warning is not None:
        print(f"warning: {found.warning}", file=sys.stderr)
