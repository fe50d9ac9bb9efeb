"""The table of several tasks: a row for each task's run, and the averages that GLUE reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lkd_tune.config.settings.known_tasks import OFFICIAL_METRICS
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import Row
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.verdict import distillation_verdict


@dataclass(frozen=True)
class TaskRow:
    """The result of a task.

    Attributes:
        task: Its name.
        metrics: Names of the metrics that GLUE reports for it.
        student: Metrics of the best student on dev; empty without a student.
        teacher: Metrics of the teacher on dev.
        baseline: Metrics of the best student's shape trained on the labels alone on dev; empty
            without it.
        on_test: Metrics of `student`, `teacher` and `baseline` on test. For MNLI, test is its
            mismatched genres.
        parameters: Number of parameters of the best student.
        hours: Machine time of the whole run, including the teacher's.
        run: The task's run folder.
        left: Why the search is not done; '' if it is done.
        verdict: Whether distillation was worth it, in words; '' if that is not known.
    """

    task: str
    metrics: tuple[str, ...]
    student: dict[str, float]
    teacher: dict[str, float]
    baseline: dict[str, float]
    on_test: dict[str, dict[str, float]]
    parameters: int | None
    hours: float
    run: str
    left: str = ""
    verdict: str = ""

    def score(self, of: str) -> float | None:
        """Returns the mean of a model's metrics, which is GLUE's score of a task; None if unknown.

        Args:
            of: student, teacher or baseline.
        """
        found = getattr(self, of)
        return sum(found.values()) / len(found) if found else None


@dataclass(frozen=True)
class TaskTable:
    """Results of several tasks, in the order they were searched."""

    rows: list[TaskRow]

    @property
    def done(self) -> TaskTable:
        """The tasks whose searches are done."""
        return TaskTable([row for row in self.rows if not row.left])

    def average(self, of: str, *, without: tuple[str, ...] = ()) -> float | None:
        """Returns the mean score over the tasks; None if a task is not done or has no score.

        Args:
            of: student, teacher or baseline.
            without: Names of tasks to leave out. WNLI is often left out.
        """
        rows = [row for row in self.rows if row.task not in without]
        scores = [None if row.left else row.score(of) for row in rows]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known and len(known) == len(scores) else None


def read_task_table(
    runs: Mapping[str, RunFolder], left: Mapping[str, str] | None = None
) -> TaskTable:
    """Returns the table of several tasks' runs.

    Args:
        runs: Run folders by the names of the tasks. The folder of a search that has not started
            may be empty.
        left: For each task whose search is not done, the reason. Default: all searches are done.
    """
    return TaskTable([_row(task, run, (left or {}).get(task, "")) for task, run in runs.items()])


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


def _row(task: str, run: RunFolder, left: str) -> TaskRow:
    if not run.manifest.exists():
        return TaskRow(task, (), {}, {}, {}, {}, None, 0.0, str(run.path), left)
    board = read_leaderboard(run)
    metrics = OFFICIAL_METRICS.get(task, (board.metric,))

    def chosen(found: Mapping[str, float]) -> dict[str, float]:
        return {name: found[name] for name in metrics if name in found}

    def measured(trial: Row | None) -> dict[str, float]:
        record = run.read_trial(trial.name) if trial else None
        return chosen(record.measurements[-1].metrics) if record and record.measurements else {}

    def on_test(trial: Row | None) -> dict[str, float]:
        file = run.trial(trial.name) / "test.json" if trial else None
        return chosen(json.loads(file.read_text("utf-8"))) if file and file.exists() else {}

    best, teacher = board.best, board.teacher
    return TaskRow(
        task=task,
        metrics=metrics,
        student=measured(best),
        teacher=chosen(teacher.get("dev", {})),
        baseline=measured(board.baseline),
        on_test={
            "student": on_test(best),
            "teacher": chosen(teacher.get("test", {})),
            "baseline": on_test(board.baseline),
        },
        parameters=best.parameters if best else None,
        hours=board.totals["wall_s"] / 3600,
        run=str(run.path),
        left=left,
        verdict=distillation_verdict(board),
    )
