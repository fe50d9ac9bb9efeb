"""The summary below a leaderboard on a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from lkd_tune.records.run import RunFolder
from lkd_tune.results.formatting import (
    duration,
    megabytes,
    number,
    percent,
)
from lkd_tune.results.leaderboard import Leaderboard, Row
from lkd_tune.results.summary import gpu_use, machine_of, part_costs, state_counts
from lkd_tune.results.verdict import verdict

_MAX_FAILURES_SHOWN = 5


def summary_lines(board: Leaderboard) -> list[str]:
    """Returns sentences about the best student, its comparisons, and the cost of the run."""
    failed = [row for row in board.rows if row.state == "failed"]
    return [
        *_best_lines(board),
        _trials_line(board),
        *(f"cost of the {part}: {cost}" for part, cost in part_costs(board)),
        *_training_lines(board),
        *(f"{row.name} failed: {row.error}" for row in failed[:_MAX_FAILURES_SHOWN]),
    ]


def warn_of_unreadable(run: RunFolder) -> None:
    """Prints each trial that can't be read to standard error."""
    for line in run.unreadable_trials():
        print(f"warning: {line}", file=sys.stderr)


def run_place(run: RunFolder) -> str:
    """Returns where a run is: an address, or a path relative to the working directory."""
    return _relative(run.where)


def student_place(board: Leaderboard, row: Row) -> str:
    """Returns where a kept student is: an address, or a path relative to the working directory."""
    return _relative(f"{board.run}/students/{row.name}")


def _best_lines(board: Leaderboard) -> list[str]:
    best = board.best
    if best is None:
        return []
    lines = [verdict(board)]
    if board.lead_score is not None:
        lines.append(f"the first sentences of each document alone: {number(board.lead_score)}")
    if best.task_score is not None:
        teacher = number(board.teacher.get("dev", {}).get(board.task_metric))
        own = f"{board.task_metric} {number(best.task_score)}"
        lines.append(f"before fine-tuning: {own}, the teacher's {teacher}")
    lines += _front_lines(board) + _confirmed_lines(board)
    lines += _recipe_lines(board) + _weak_teacher_lines(board)
    if best.kept:
        lines.append(f"the best student is in {student_place(board, best)}")
    return lines


def _front_lines(board: Leaderboard) -> list[str]:
    """Returns the size of the Pareto front, with several objectives."""
    if len(board.objectives) == 1:
        return []
    front = [row.name for row in board.rows if row.on_front]
    return [
        f"Pareto front in {', '.join(board.objectives)}: {len(front)} students, marked *; "
        "the first is its knee"
    ]


def _confirmed_lines(board: Leaderboard) -> list[str]:
    """Returns which of the confirmed trials lost seeds, and which are as good as the best."""
    rows = {row.name: row for row in board.rows if row.mean is not None}
    best, lines = board.best, []
    if best is None or best.name not in rows:
        return []
    for row in rows.values():
        if row.failed_seeds:
            lines.append(f"trial {row.name}: {row.failed_seeds} of the other seeds failed")
    ties = [row.name for row in rows.values() if row.ties_with_best and row.name != best.name]
    if ties:
        lines.append(
            "statistically indistinguishable from the winner (Welch's t-test, p > 0.05): "
            + ", ".join(ties)
        )
    return lines


def _recipe_lines(board: Leaderboard) -> list[str]:
    """Returns the scores of the recipes that the search started with and trained to the end."""
    found = [
        f"{row.origin.removeprefix('recipe ')} {number(row.score)} (trial {row.name})"
        for row in sorted(board.rows, key=lambda row: row.name)
        if row.origin is not None and row.origin.startswith("recipe ") and row.state == "complete"
    ]
    return [f"recipes: {', '.join(found)}"] if found else []


def _weak_teacher_lines(board: Leaderboard) -> list[str]:
    """Returns what to do if the student trained on labels alone is better than the teacher."""
    teacher, baseline = board.teacher_score, board.baseline
    if teacher is None or baseline is None or baseline.score is None or baseline.score <= teacher:
        return []
    return [
        f"the student trained on labels alone is better than the teacher ({number(teacher)}): "
        "train the teacher longer or with other settings (teacher.train), or use another teacher"
    ]


def _trials_line(board: Leaderboard) -> str:
    cost, machine = board.costs["trials"], machine_of(board)
    text = f"trials: {state_counts(board) or 'none yet'}; {duration(cost['wall_s'])} in total"
    return text + gpu_use(cost) + (f" on {machine}" if machine else "")


def _training_lines(board: Leaderboard) -> list[str]:
    """Returns what is notable about targets, memory, data and padding."""
    lines = []
    targets = board.manifest.get("targets")
    if targets:
        lines.append(
            f"teacher targets: {targets['teacher_examples']:,} examples, "
            f"{megabytes(targets['bytes'])}, built once in {duration(targets['build_s'])}"
        )
    split = [row.name for row in board.rows if row.accumulation > 1]
    if split:
        lines.append(
            "ran out of memory and continued with smaller micro-batches: " + ", ".join(split)
        )
    skipped = [f"{row.name} {row.skipped}" for row in board.rows if row.skipped]
    if skipped:
        lines.append(f"bad training examples left out, by trial: {', '.join(skipped)}")
    if board.best is not None and board.best.padding:
        padding = percent(board.best.padding, 1)
        lines.append(f"padding: {padding} of the tokens in the best student's batches")
    return lines


def _relative(place: str) -> str:
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
