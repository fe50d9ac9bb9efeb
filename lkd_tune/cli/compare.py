"""The command that sets two models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lkd_tune.cli.completion import complete_task

if TYPE_CHECKING:
    from lkd_tune.evaluation.compare import Comparison
    from lkd_tune.models.memory import HostMemory


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(compare)


def compare(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="A model's folder, address or hub id, or a run's alone."),
    ],
    second: Annotated[str | None, typer.Argument(metavar="B", help="Another model.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="A known task; default: the one that B or A was distilled for.",
            autocompletion=complete_task,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Score this file instead of the dev split.")
    ] = None,
    split: Annotated[str, typer.Option(help="dev or test.")] = "dev",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override any setting of task; repeatable."
        ),
    ] = None,
) -> None:
    """Set two models side by side on the same data: scores, differences, size, speed and memory.

    Whether the difference is more than chance is told by the interval of B - A. A run alone stands
    for its teacher and its best student.

    Examples:

        lkd-tune compare runs/first

        lkd-tune compare my-teacher students/1

        lkd-tune compare students/1 students/2 --split test

        lkd-tune compare my-teacher my-student --task sst2 --data dev.tsv
    """
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.evaluation.task import evaluation_task
    from lkd_tune.storage.fetch import local_model

    if split not in ("dev", "test"):
        raise SpecError(Problem("--split", "", f"found {split!r}; allowed: dev, test"))
    if second is None:
        first, second = _teacher_and_best(first)
    of = second if (Path(local_model(second)) / "student.json").exists() else first
    settings = evaluation_task(of, task, data, split, overrides or [])
    from lkd_tune.config.settings.task_kinds import KINDS
    from lkd_tune.evaluation.compare import compare_models
    from lkd_tune.models.memory import measure_memory

    models = (first, second)
    found = compare_models(models, settings, split=split)
    memory = measure_memory(models, KINDS[settings.kind].head, settings.max_length)
    _show(found, memory, settings.metric, split)


def _teacher_and_best(run: str) -> tuple[str, str]:
    """Returns a run's teacher and its best student that is kept, as model folders or hub ids."""
    from lkd_tune.config.errors import Problem, SpecError
    from lkd_tune.results.leaderboard import read_leaderboard
    from lkd_tune.storage.fetch import read_run

    folder = read_run(run, students=True)
    if not folder.manifest.exists():
        message = "is no run's folder; name a second model, or a run alone"
        raise SpecError(Problem(run, "", message))
    board = read_leaderboard(folder)
    if not board.kept:
        raise SpecError(Problem(run, "", "keeps no student yet; no trial is complete"))
    if not board.teacher.get("model"):
        raise SpecError(Problem(run, "", "has no teacher to compare with; name two models"))
    return board.teacher["model"], str(folder.student(board.kept[0].name))


def _show(found: Comparison, memory: list[HostMemory], metric: str, split: str) -> None:
    from rich.table import Table

    from lkd_tune.cli.tables import millions, terminal

    console = terminal()
    table = Table(box=None, pad_edge=False)
    for column in ("", "A", "B"):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    a, b = found.sides
    table.add_row("model", a.model, b.model)
    table.add_row(f"{metric} on {split}", f"{a.score:.4f}", f"{b.score:.4f}")
    table.add_row("95 % interval", *(f"{side.low:.4f} to {side.high:.4f}" for side in found.sides))
    for name in a.metrics:
        if name != metric:
            table.add_row(name, f"{a.metrics[name]:.4f}", f"{b.metrics[name]:.4f}")
    table.add_row("parameters", millions(a.size.parameters), millions(b.size.parameters))
    for name, value in (("latency, ms", "latency_ms"), ("disk, MB", "disk_mb")):
        table.add_row(name, *(f"{getattr(side.size, value):.1f}" for side in found.sides))
    table.add_row("peak memory, MB", *(f"{taken.peak_mb:.0f}" for taken in memory))
    own = (taken.peak_mb - taken.libraries_mb for taken in memory)
    table.add_row("  less libraries", *(f"{mb:.0f}" for mb in own))
    console.print(table)
    chance = "not told from chance" if found.low <= 0 <= found.high else "more than chance"
    interval = f"{found.low:+.4f} to {found.high:+.4f}"
    print(f"B - A: {found.gain:+.4f}, 95 % {interval} on {found.examples:,} examples: {chance}")
    if found.agreement is not None:
        print(f"they agree on {found.agreement:.1%}")
    for difference in found.differences:
        ours, theirs = difference.answers
        print(f"  right {difference.label}, A {ours}, B {theirs}: {difference.text}")
