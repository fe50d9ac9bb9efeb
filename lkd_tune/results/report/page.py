"""The report of a run: one HTML file that needs no other, and its plots as files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import BASELINE
from lkd_tune.results import formatting, summary
from lkd_tune.results.columns import page_columns
from lkd_tune.results.leaderboard import Leaderboard
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.plots.figures import ablation_label, write_plots
from lkd_tune.results.plots.style import css_variables
from lkd_tune.results.verdict import verdict

_MAX_ROWS = 15
_MAX_REASONS = 8


@dataclass(frozen=True)
class ComparedRun:
    """A run in the comparison: its folder's name and its leaderboard."""

    name: str
    board: Leaderboard


def write_report(
    run: RunFolder, compare: Sequence[RunFolder] = (), *, refresh_s: int | None = None
) -> Path:
    """Writes RUN/report/report.html and its plots; works during a search and after a crash.

    Args:
        run: The run.
        compare: Other runs, compared with it in a table.
        refresh_s: Seconds after which a browser reloads the page. Default: it does not.

    Returns:
        The page.

    Raises:
        SpecError: If a folder is not a run folder.
    """
    board = read_leaderboard(run)
    name = run.path.absolute().name
    others = [ComparedRun(other.path.name, read_leaderboard(other)) for other in compare]
    ablation = read_ablation(run)
    plots = write_plots(run, board, ablation, run.report)
    students = [row for row in board.rows if row.rank is not None or row.name == BASELINE]
    shown = students[:_MAX_ROWS]
    if board.baseline is not None and board.baseline not in shown:
        shown.append(board.baseline)
    failures = [row.error or "unknown reason" for row in board.rows if row.state == "failed"]
    refusals = [row.error or "" for row in board.rows if row.state == "refused"]
    page = _environment().get_template("report.html.j2").render(
        title=name,
        board=board,
        summary=summary,
        formatting=formatting,
        plots=[(plot, Markup(plot.svg)) for plot in plots],  # ours, and escaped by matplotlib
        columns=page_columns(board),
        rows=shown,
        more=len(students) - len(shown),
        verdict=verdict(board),
        failures=Counter(failures).most_common(_MAX_REASONS),
        refusals=Counter(refusals).most_common(_MAX_REASONS),
        ablation=ablation,
        ablation_label=ablation_label,
        compared=[ComparedRun(name, board), *others] if others else [],
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
        refresh_s=refresh_s,
    )  # fmt: skip
    path = run.report / "report.html"
    write_atomically(path, page)
    return path


def read_ablation(run: RunFolder) -> dict[str, Any] | None:
    """Returns the results of `lkd-tune ablate`; None if it was not run."""
    if not run.ablation.exists():
        return None
    return json.loads(run.ablation.read_text("utf-8"))


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("lkd_tune.results.report"),
        autoescape=True,  # names of tasks, runs and teachers, and errors, may hold anything
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
