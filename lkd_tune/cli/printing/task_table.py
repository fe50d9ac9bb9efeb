"""The table of several tasks on a terminal."""

from __future__ import annotations

from rich.table import Table

from lkd_tune.cli.printing.tables import terminal
from lkd_tune.results.formatting import millions, number
from lkd_tune.results.task_table import TaskTable


def show_task_table(table: TaskTable) -> None:
    """Prints a row for each task, and the averages."""
    console = terminal()
    shown = Table(title="all tasks, on dev", title_justify="left", box=None, pad_edge=False)
    for column in ("task", "metrics"):
        shown.add_column(column, no_wrap=True)
    for column in ("teacher", "student", "labels alone", "params", "hours"):
        shown.add_column(column, justify="right")

    def several(found: dict[str, float]) -> str:
        return " / ".join(number(value) for value in found.values())

    for row in table.rows:
        shown.add_row(
            f"{row.task} ({row.left})" if row.left else row.task, " / ".join(row.metrics),
            several(row.teacher), several(row.student), several(row.baseline),
            millions(row.parameters), f"{row.hours:.2f}",
        )  # fmt: skip
        if any(row.on_test.values()):
            test = (several(row.on_test[of]) for of in ("teacher", "student", "baseline"))
            shown.add_row("  on test", "", *test, "", "")
    done, all_of = table.done, len(table.rows)
    part = "" if len(done.rows) == all_of else f" of {len(done.rows)} of {all_of}"
    averages: list[tuple[str, tuple[str, ...]]] = [(f"average{part}", ())]
    if any(row.task == "wnli" for row in done.rows):
        averages.append(("without wnli", ("wnli",)))
    for name, without in averages:
        means = (done.average(of, without=without) for of in ("teacher", "student", "baseline"))
        shown.add_row(name, "", *(number(mean) for mean in means), "", "")
    console.print(shown)
    for row in table.rows:
        if row.verdict:
            console.print(f"{row.task}: {row.verdict}", soft_wrap=True)
