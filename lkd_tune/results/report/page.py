"""A run as one page that needs nothing else, and its plots as files."""

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
from lkd_tune.results import summary as facts
from lkd_tune.results.columns import page_columns
from lkd_tune.results.leaderboard import Leaderboard
from lkd_tune.results.leaderboard_files import read_leaderboard
from lkd_tune.results.plots.figures import ablation_label, write_plots
from lkd_tune.results.plots.style import css_variables

_MAX_ROWS = 15


@dataclass(frozen=True)
class Compared:
    """A run beside others: its folder's name and its leaderboard."""

    name: str
    board: Leaderboard


def write_report(
    run: RunFolder, compare: Sequence[RunFolder] = (), *, refresh_s: int | None = None
) -> Path:
    """Writes RUN/report/report.html and its plots; also while the search runs, and after a crash.

    Args:
        run: The run.
        compare: Runs to be put beside it.
        refresh_s: Has a browser load the page again after so many seconds; none: not at all.

    Returns:
        The page.

    Raises:
        SpecError: If a folder is not that of a run.
    """
    board = read_leaderboard(run)
    others = [Compared(other.path.name, read_leaderboard(other)) for other in compare]
    ablation = read_ablation(run)
    plots = write_plots(run, board, ablation, run.report)
    trials = [row for row in board.rows if row.rank is not None or row.name == "baseline"]
    failures = [row.error or "no reason is known" for row in board.rows if row.state == "failed"]
    refusals = [row.error or "" for row in board.rows if row.state == "refused"]
    page = _environment().get_template("report.html.j2").render(
        title=run.path.absolute().name,
        board=board,
        facts=facts,
        state=facts.state_of(board),
        dashboard=facts.dashboard_of(board.manifest),
        answer=facts.answer(board),
        plots=[(plot, Markup(plot.svg)) for plot in plots],  # ours, and escaped by matplotlib
        columns=page_columns(board),
        rows=trials[:_MAX_ROWS],
        more=len(trials) - _MAX_ROWS,
        failures=Counter(failures).most_common(8),
        refusals=Counter(refusals).most_common(8),
        ablation=ablation,
        ablation_label=ablation_label,
        compared=[Compared(run.path.absolute().name, board), *others] if others else [],
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
        refresh_s=refresh_s,
    )  # fmt: skip
    path = run.report / "report.html"
    write_atomically(path, page)
    return path


def read_ablation(run: RunFolder) -> dict[str, Any] | None:
    """Returns what `lkd-tune ablate` found, None where it did not run."""
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
