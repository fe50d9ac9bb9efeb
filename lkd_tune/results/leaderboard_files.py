"""The leaderboard of a run: read from its folder, written to leaderboard.csv and .json."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from lkd_tune.config.read_space import load_recorded_space
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.ranking import Ranking, rank_trials
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_record import BASELINE, TrialRecord
from lkd_tune.results.columns import COLUMNS, TrialContext, energy_j
from lkd_tune.results.leaderboard import Leaderboard, Row, flat_row
from lkd_tune.results.verdict import verdict


def read_leaderboard(run: RunFolder) -> Leaderboard:
    """Returns the leaderboard of a run that is finished, still running, or crashed.

    Raises:
        SpecError: If the folder is not a run folder.
    """
    manifest = run.read_manifest()
    records = run.read_trials()
    asked = records[0].spec if records else load_recorded_space(run.space).settings
    metric, task = asked.score_name, asked.task
    teacher = manifest.get("teacher") or {}
    teacher_score = teacher.get("dev", {}).get(metric)
    confirmed = {entry["trial"]: entry for entry in run.read_confirmation()}
    objectives = manifest.get("objectives", ["score"])
    ranking = rank_trials(records, objectives, confirmed.values())
    order = {"running": 1, "stopped": 2, "refused": 3, "failed": 4}
    others = sorted(
        # The other seeds of a confirmed trial are part of its row.
        (
            r
            for r in records
            if r.name not in ranking.names and (r.is_numbered or r.name == BASELINE)
        ),
        key=lambda r: (r.name != BASELINE, order.get(r.state, 0), -(r.score or 0.0), r.name),
    )
    by_name = {record.name: record for record in records}
    ordered = [*(by_name[name] for name in ranking.names), *others]
    rows = [
        _row(run, record, ranking, metric, teacher_score, confirmed.get(record.name, {}))
        for record in ordered
    ]
    seeds = max((len(c["seeds"]) for c in confirmed.values()), default=0)
    return Leaderboard(
        run.where,
        task.name,
        metric,
        str(task.metric),
        KINDS[task.kind].head,
        teacher,
        manifest,
        rows,
        objectives,
        seeds,
        {name: entry.get("scores", []) for name, entry in confirmed.items()},
        {"trials": _cost_of(records), **manifest.get("costs", {})},
    )


def write_leaderboard(run: RunFolder) -> Leaderboard:
    """Writes leaderboard.csv and leaderboard.json; returns the leaderboard."""
    board = read_leaderboard(run)
    facts = {**asdict(board), "totals": board.totals, "verdict": verdict(board)}
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    write_atomically(run.leaderboard_json, text + "\n")
    out = io.StringIO()
    rows = [flat_row(row) for row in board.rows]
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(run.leaderboard_csv, out.getvalue())
    return board


def _row(
    run: RunFolder,
    record: TrialRecord,
    ranking: Ranking,
    metric: str,
    teacher_score: float | None,
    confirmed: dict[str, Any],
) -> Row:
    test = run.trial(record.name) / "test.json"
    metrics = json.loads(test.read_text("utf-8")) if test.exists() else {}
    trial = TrialContext(record, ranking, metric, teacher_score, confirmed, metrics)
    return Row(**{column.name: column.value(trial) for column in COLUMNS})


def _cost_of(records: list[TrialRecord]) -> dict[str, float]:
    outcomes = [record.outcome for record in records if record.outcome]
    held = {
        name: sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("wall_s", "gpu_s", "cpu_s")
    }
    return {**held, "energy_j": sum(energy_j(record) or 0.0 for record in records)}
