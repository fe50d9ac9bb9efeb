"""The models of a run by which others are measured: its best students and its teacher."""

from __future__ import annotations

from pathlib import Path

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.records.run import RunFolder
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.leaderboard_files import read_leaderboard


def kept_students(board: Leaderboard) -> list[Row]:
    """Returns the trials whose students are kept, best first; at least one.

    Raises:
        SpecError: If the run has no student yet.
    """
    if not board.kept:
        raise SpecError(Problem(board.run, "", "has no student yet: no trial is complete"))
    return board.kept


def best_student(run: RunFolder) -> Path:
    """Returns the folder of the best student.

    Raises:
        SpecError: If the run has no student yet.
    """
    return run.student(kept_students(read_leaderboard(run))[0].name)


def teacher_and_best(run: RunFolder) -> tuple[str, str]:
    """Returns the teacher's folder or hub id, and the folder of the best student.

    Raises:
        SpecError: If the run has no student yet, or its teacher is not known.
    """
    student = best_student(run)
    teacher = run.read_manifest().get("teacher") or {}
    if not teacher.get("model"):
        raise SpecError(Problem(run.where, "", "has no teacher to compare with; name two models"))
    return teacher["model"], str(student)
