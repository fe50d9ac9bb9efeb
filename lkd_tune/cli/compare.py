"""The command `compare`: two models side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lkd_tune.cli.completion import complete_task
from lkd_tune.cli.options import SplitOption, TaskSetOption

if TYPE_CHECKING:
    from lkd_tune.evaluation.compare import Comparison
    from lkd_tune.models.memory import HostMemory


def compare(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="A model's folder, address or hub id; or a run."),
    ],
    second: Annotated[str | None, typer.Argument(metavar="B", help="A second model.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="A known task. Default: the one that B or A was distilled for.",
            autocompletion=complete_task,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to score instead of the task's split.")
    ] = None,
    split: SplitOption = "dev",
    overrides: TaskSetOption = None,
) -> None:
    """Compare two models on the same data: scores, answers, size, speed and memory.

    The difference is significant if the 95 % confidence interval of B - A does not contain 0. A run
    without a second model compares its teacher with its best student.

    Examples:

        lkd-tune compare runs/first

        lkd-tune compare my-teacher students/1

        lkd-tune compare students/1 students/2 --split test

        lkd-tune compare my-teacher my-student --task sst2 --data dev.tsv
    """
    from lkd_tune.evaluation.task import evaluation_task
    from lkd_tune.storage.fetch import local_model

    if second is None:
        first, second = _teacher_and_best(first)
    student = second if (Path(local_model(second)) / "student.json").exists() else first
    settings = evaluation_task(student, task, data, split, overrides or [])
    from lkd_tune.config.settings.task_kinds import KINDS
    from lkd_tune.evaluation.compare import compare_models
    from lkd_tune.models.memory import measure_memory

    models = (first, second)
    comparison = compare_models(models, settings, split=split)
    memory = measure_memory(models, KINDS[settings.kind].head, settings.max_length)
    _show(comparison, memory, settings.metric, data.name if data else split)


def _teacher_and_best(run: str) -> tuple[str, str]:
    """Returns a run's teacher and its best kept student, each as a model folder or a hub id."""
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.results.models import teacher_and_best
    from lkd_tune.storage.fetch import read_run

    folder = read_run(run, students=True)
    if not folder.manifest.exists():
        message = "is not a run's folder; name a second model, or a run alone"
        raise SpecError(Problem(run, "", message))
    return teacher_and_best(folder)


def _show(comparison: Comparison, memory: list[HostMemory], metric: str, data: str) -> None:
    from rich.table import Table

    from lkd_tune.cli.printing.tables import terminal
    from lkd_tune.results.formatting import millions

    console = terminal()
    table = Table(box=None, pad_edge=False)
    for column in ("", "A", "B"):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    a, b = comparison.sides
    table.add_row("model", a.model, b.model)
    table.add_row(f"{metric} on {data}", f"{a.score:.4f}", f"{b.score:.4f}")
    table.add_row(
        "95 % interval", *(f"{side.low:.4f} to {side.high:.4f}" for side in comparison.sides)
    )
    for name in a.metrics:
        if name != metric:
            table.add_row(name, f"{a.metrics[name]:.4f}", f"{b.metrics[name]:.4f}")
    table.add_row("parameters", millions(a.size.parameters), millions(b.size.parameters))
    for name, value in (("latency, ms", "latency_ms"), ("disk, MB", "disk_mb")):
        table.add_row(name, *(f"{getattr(side.size, value):.1f}" for side in comparison.sides))
    table.add_row("peak memory, MB", *(f"{side.peak_mb:.0f}" for side in memory))
    without_libraries = (side.peak_mb - side.libraries_mb for side in memory)
    table.add_row("  less libraries", *(f"{mb:.0f}" for mb in without_libraries))
    console.print(table)
    print(f"latency of one full-length example on {comparison.device}, timed in turns")
    if comparison.warning is not None:
        print(f"warning: {comparison.warning}", file=sys.stderr)
    verdict = "not significant" if comparison.low <= 0 <= comparison.high else "significant"
    interval = f"{comparison.low:+.4f} to {comparison.high:+.4f}"
    examples = f"{comparison.examples:,} examples"
    print(f"B - A: {comparison.gain:+.4f}, 95 % {interval} on {examples}: {verdict}")
    if comparison.agreement is not None:
        print(f"same answer for {comparison.agreement:.1%} of the examples")
    for difference in comparison.differences:
        a_answer, b_answer = difference.answers
        label, text = difference.label, difference.text
        print(f"  correct {label}, A {a_answer}, B {b_answer}: {text}")
