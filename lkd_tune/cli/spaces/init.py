"""The command `init`: a space file for one's own data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def init(
    train: Annotated[
        Path,
        typer.Argument(
            metavar="TRAIN", help="Training data: csv, tsv, txt, json, jsonl, parquet or conll."
        ),
    ],
    dev: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Data that score the trials. Default: a file beside TRAIN with dev or valid in "
            "place of train in its name, else held-out rows of TRAIN.",
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Data that score the winner. Default: as for --dev."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Folder or hub id of a fine-tuned model, or of a pre-trained one, which is "
            "fine-tuned first. Default: one for the texts' script.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The space file. Default: here, named after TRAIN or its folder."
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the text. Default: guessed.")
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of a second text. Default: guessed."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the label. Default: guessed.")
    ] = None,
) -> None:
    """Write a space file for your own data.

    Columns, kind of task, metric and maximum length are guessed from the data. The file says each
    guess in a comment; correct what is wrong.

    Examples:

        lkd-tune init train.csv

        lkd-tune init train.csv --dev dev.csv --teacher my-fine-tuned-model --to reviews.yaml
    """
    import torch

    from lkd_tune.drafts.draft import Request, draft_path, write_draft

    gpus = torch.cuda.is_available()
    request = Request(train, dev, test, teacher, text, pair, label, gpus=gpus)
    path = to or draft_path(train)
    for line in write_draft(request, path):
        print(line)
    where = shlex.quote(str(path))
    print(f"written to {path}; look at it, then:")
    print(f"  lkd-tune check --space {where}")
    print(f"  lkd-tune search --space {where}")
