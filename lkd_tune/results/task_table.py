"""Several tasks at a glance: a row for each task's run, and the averages that GLUE reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lkd_tune.results.leaderboard import read_leaderboard
from lkd_tune.spec.run import RunFolder, write_atomically
from lkd_tune.spec.tasks import OFFICIAL_METRICS


@dataclass(frozen=True)
class TaskRow:
    """A task's result on dev.

    Attributes:
        task: Its name.
        metrics: The metrics that GLUE reports for it.
        student: Those of the best student; empty without one.
        teacher: Those of the teacher.
        baseline: Those of the student without distillation; empty without one.
        student_on_test: Those of the best student on test, for MNLI its mismatched genres.
        parameters: Of the best student.
        hours: Machine time of the whole run, the teacher included.
        run: The task's run folder.
    """

    task: str
    metrics: tuple[str, ...]
    student: dict[str, float]
    teacher: dict[str, float]
    baseline: dict[str, float]
    student_on_test: dict[str, float]
    parameters: int | None
    hours: float
    run: str

    def score(self, of: str) -> float | None:
        """Returns the mean of a model's metrics, as GLUE counts a task; None if unknown.

        Args:
            of: student, teacher or baseline.
        """
        found = getattr(self, of)
        return sum(found.values()) / len(found) if found else None


@dataclass(frozen=True)
class TaskTable:
    """Results of several tasks, in the order they were searched."""

    rows: list[TaskRow]

    def average(self, of: str, *, without: tuple[str, ...] = ()) -> float | None:
        """Returns the mean score over the tasks, None if one of them has none.

        Args:
            of: student, teacher or baseline.
            without: Names of tasks to leave out, as WNLI often is.
        """
        scores = [row.score(of) for row in self.rows if row.task not in without]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known and len(known) == len(scores) else None


def read_task_table(runs: Mapping[str, RunFolder]) -> TaskTable:
    """Returns the table of some tasks' runs, by the names of the tasks.

    Raises:
        SpecError: If one of the folders holds no run.
    """
    return TaskTable([_row(task, run) for task, run in runs.items()])


def write_task_table(table: TaskTable, path: Path) -> None:
    """Writes a table as JSON."""
    averages = {
        of: {
            "all": table.average(of),
            "without wnli": table.average(of, without=("wnli",)),
        }
        for of in ("student", "teacher", "baseline")
    }
    facts = {"tasks": [asdict(row) for row in table.rows], "averages": averages}
    write_atomically(path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def _row(task: str, run: RunFolder) -> TaskRow:
    board = read_leaderboard(run)
    metrics = OFFICIAL_METRICS.get(task, (board.metric,))

    def chosen(found: Mapping[str, float]) -> dict[str, float]:
        return {name: found[name] for name in metrics if name in found}

    def measured(trial: str | None) -> dict[str, float]:
        record = run.read_trial(trial) if trial else None
        return chosen(record.measurements[-1].metrics) if record and record.measurements else {}

    best = board.best
    test = run.trial(best.name) / "test.json" if best else None
    return TaskRow(
        task=task,
        metrics=metrics,
        student=measured(best.name if best else None),
        teacher=chosen(board.teacher.get("dev", {})),
        baseline=measured(board.baseline.name if board.baseline else None),
        student_on_test=chosen(json.loads(test.read_text("utf-8")))
        if test is not None and test.exists()
        else {},
        parameters=best.parameters if best else None,
        hours=board.totals["wall_s"] / 3600,
        run=str(run.path),
    )
