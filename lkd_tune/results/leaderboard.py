"""One row a trial, read from a run folder: what came out and what it cost."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import Any

from lkd_tune.spec.run import BASELINE, RunFolder, TrialRecord, write_atomically


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        rank: 1 for the best of the complete trials; None for all others.
        name: The trial's name; `baseline` for plain training without distillation.
        state: complete, stopped (by the scheduler), failed, or running.
        score: Metric on dev at the last measurement.
        share: Score as a share of the teacher's, 0 for a negative one; None where the teacher's
            is not positive.
        test_score: Metric on test, where it was measured.
        depth: Encoder layers.
        hidden_size: Width of the hidden states; None where it is the teacher's or a given
            model's. So are the next two.
        heads: Attention heads of a layer.
        intermediate_size: Neurons of a feed-forward layer.
        word_map: Layer map of the word relations.
        layer_map: Layer map of the layer transforming relations.
        parameters: Embeddings included.
        step: Optimizer steps done.
        total_steps: Of the whole trial.
        wall_s: Seconds from start to end, evaluations included.
        gpu_s: Seconds times GPUs held.
        cpu_s: Seconds times CPU cores held.
        peak_memory_gib: Of the largest worker.
        samples_per_s: Training examples per second at the last measurement.
        weights: Of the five terms.
        lr: Peak learning rate.
        temperature: Of the logit loss.
        kept: Whether the student is kept.
        error: Why it failed.
    """

    rank: int | None
    name: str
    state: str
    score: float | None
    share: float | None
    test_score: float | None
    depth: int
    hidden_size: int | None
    heads: int | None
    intermediate_size: int | None
    word_map: str
    layer_map: str
    parameters: int | None
    step: int
    total_steps: int | None
    wall_s: float | None
    gpu_s: float | None
    cpu_s: float | None
    peak_memory_gib: float | None
    samples_per_s: float | None
    weights: dict[str, float]
    lr: float
    temperature: float
    kept: bool
    error: str | None


@dataclass(frozen=True)
class Leaderboard:
    """A run at a glance.

    Attributes:
        run: Its folder.
        task: Name of the task.
        metric: What scores on dev.
        teacher: The manifest's facts about the teacher, empty before it was scored.
        manifest: All facts of the manifest.
        rows: Complete trials best first, then the baseline, running, stopped and failed ones.
    """

    run: str
    task: str
    metric: str
    teacher: dict[str, Any]
    manifest: dict[str, Any]
    rows: list[Row]

    @property
    def best(self) -> Row | None:
        """The best complete trial."""
        return next((row for row in self.rows if row.rank == 1), None)

    @property
    def baseline(self) -> Row | None:
        """The winner's depth without distillation, if it was trained."""
        rows = [row for row in self.rows if row.name == BASELINE and row.state == "complete"]
        return rows[0] if rows else None

    @property
    def teacher_score(self) -> float | None:
        """The teacher's metric on dev."""
        return self.teacher.get("dev", {}).get(self.metric)

    @property
    def totals(self) -> dict[str, float]:
        """What all trials have cost: wall_s, gpu_s and cpu_s."""
        return {
            name: sum(getattr(row, name) or 0.0 for row in self.rows)
            for name in ("wall_s", "gpu_s", "cpu_s")
        }

    def count(self, state: str) -> int:
        """Returns the number of trials in a state, the baseline not counted."""
        return sum(row.state == state and row.name != BASELINE for row in self.rows)


def read_leaderboard(run: RunFolder) -> Leaderboard:
    """Returns a run's leaderboard; also while it runs, and after a crash.

    Raises:
        SpecError: If the folder is not that of a run.
    """
    manifest = run.read_manifest()
    records = run.read_trials()
    metric = str(records[0].spec.task.metric) if records else ""
    teacher = manifest.get("teacher") or {}
    teacher_score = teacher.get("dev", {}).get(metric)
    complete = sorted(
        (r for r in records if r.state == "complete" and r.name != BASELINE),
        # Of equal scores the earlier trial's, as with the kept students.
        key=lambda r: (-(r.score or 0.0), r.name),
    )
    ranks = {record.name: rank for rank, record in enumerate(complete, 1)}
    order = {"running": 1, "stopped": 2, "failed": 3}
    others = sorted(
        (r for r in records if r.name not in ranks),
        key=lambda r: (r.name != BASELINE, order.get(r.state, 0), -(r.score or 0.0), r.name),
    )
    rows = [_row(run, r, ranks.get(r.name), metric, teacher_score) for r in [*complete, *others]]
    task = records[0].spec.task.name if records else ""
    return Leaderboard(str(run.path), task, metric, teacher, manifest, rows)


def write_leaderboard(run: RunFolder) -> Leaderboard:
    """Writes leaderboard.csv and leaderboard.json and returns what is in them."""
    board = read_leaderboard(run)
    facts = {**asdict(board), "totals": board.totals}
    write_atomically(run.leaderboard_json, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    out = io.StringIO()
    rows = [_flat(row) for row in board.rows]
    if rows:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(run.leaderboard_csv, out.getvalue())
    return board


def _row(
    run: RunFolder,
    record: TrialRecord,
    rank: int | None,
    metric: str,
    teacher_score: float | None,
) -> Row:
    spec, outcome = record.spec, record.outcome
    last = record.measurements[-1] if record.measurements else None
    share = None
    if record.score is not None and teacher_score is not None and teacher_score > 0:
        share = max(0.0, record.score / teacher_score)
    test = run.trial(record.name) / "test.json"
    tests = json.loads(test.read_text("utf-8")) if test.exists() else {}
    return Row(
        rank=rank,
        name=record.name,
        state=record.state,
        score=record.score,
        share=share,
        test_score=tests.get(metric),
        depth=spec.student.depth,
        hidden_size=spec.student.hidden_size,
        heads=spec.student.heads,
        intermediate_size=spec.student.intermediate_size,
        word_map=_map_text(spec.layer_map.word),
        layer_map=_map_text(spec.layer_map.layer),
        parameters=last.parameters if last else None,
        step=last.step if last else 0,
        total_steps=last.total_steps if last else None,
        wall_s=outcome.wall_s if outcome else None,
        gpu_s=outcome.gpu_s if outcome else None,
        cpu_s=outcome.cpu_s if outcome else None,
        peak_memory_gib=max((m.peak_memory_gib for m in record.measurements), default=None),
        samples_per_s=last.samples_per_s if last else None,
        weights={name: term.weight for name, term in spec.losses},
        lr=spec.train.lr,
        temperature=spec.losses.logits.temperature,
        kept=record.kept,
        error=outcome.error if outcome else None,
    )


def _map_text(entries: tuple[int, ...] | str) -> str:
    return entries if isinstance(entries, str) else "-".join(map(str, entries))


def _flat(row: Row) -> dict[str, Any]:
    flat = asdict(row)
    weights = flat.pop("weights")
    return {**flat, **{f"weight_{name}": weight for name, weight in weights.items()}}
