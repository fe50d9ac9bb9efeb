"""The command `evaluate`: the scores of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lkd_tune.cli.completion import complete_task
from lkd_tune.cli.options import SplitOption, TaskSetOption


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's folder, address or hub id.")
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="A known task. Default: the one that the student was distilled for.",
            autocompletion=complete_task,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to score instead of the task's split."),
    ] = None,
    split: SplitOption = "dev",
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the prediction for each row, as JSON lines."),
    ] = None,
    overrides: TaskSetOption = None,
) -> None:
    """Score a model on a task's data.

    Examples:

        lkd-tune evaluate students/1

        lkd-tune evaluate students/1 --split test

        lkd-tune evaluate bert-base-cola --task cola --data dev.tsv

        lkd-tune evaluate my-model --data mine.csv --set task.columns.text=sentence

        lkd-tune evaluate students/1 --predictions dev.jsonl
    """
    from lkd_tune.cli.printing.tables import show_metrics
    from lkd_tune.evaluation.task import evaluation_task, write_rows

    settings = evaluation_task(model, task, data, split, overrides or [])
    from lkd_tune.evaluation.scoring import evaluate_model, predict_rows

    if predictions is None:
        scores = evaluate_model(model, settings, splits=(split,))[split]
    else:
        scores, rows = predict_rows(model, settings, split)
        write_rows(predictions, rows)
    show_metrics(settings, data.name if data else split, scores)
