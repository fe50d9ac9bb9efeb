"""One row a trial, read from a run folder: what came out and what it cost."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import Any

from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.space import load_recorded_space
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.ranking import Ranking, rank_trials
from lkd_tune.records.run import BASELINE, RunFolder, TrialRecord
from lkd_tune.results.columns import COLUMNS, TrialContext, energy_j

COSTS = ("wall_s", "gpu_s", "cpu_s", "energy_j")


@dataclass(frozen=True)
class Row:
    """A trial on the leaderboard; `COLUMNS` says how each field is computed and shown."""

    rank: int | None
    """1 for the best complete trial; None for trials that are not ranked."""
    on_front: bool
    """Whether it is on the Pareto front: no other complete trial is as good in every objective and
    better in one."""
    name: str
    """The trial's name, as `0007`; `baseline` for plain training without distillation."""
    origin: str | None
    """`published` or a trial of another run, if the search started from its settings."""
    state: str
    """complete, stopped (by the scheduler), refused (above a limit), failed, or running."""
    score: float | None
    """Metric on dev at the last measurement. With `evaluate_on`: the metric of the fine-tuned
    student; None until it is fine-tuned."""
    task_score: float | None
    """With `evaluate_on`: the metric of the run's own task on dev at the last measurement."""
    share: float | None
    """Score as a share of the teacher's; 0 for a negative score, None if the teacher's is not
    positive."""
    mean: float | None
    """Mean score of the other seeds, if the trial was confirmed."""
    low: float | None
    """Lower end of the mean's 95 % confidence interval."""
    high: float | None
    """Its upper end."""
    failed_seeds: int
    """Number of other seeds that ended without a score."""
    ties_with_best: bool | None
    """Whether it is statistically indistinguishable from the best mean (Welch's t-test, p >
    0.05)."""
    test_score: float | None
    """Metric on test, if it was measured."""
    test_mean: float | None
    """Mean metric on test of the other seeds."""
    depth: int
    """Encoder layers of the student."""
    hidden_size: int | None
    """Width of the hidden states; None if it is the teacher's or that of a given model."""
    heads: int | None
    """Attention heads of a layer; None as for `hidden_size`."""
    intermediate_size: int | None
    """Neurons of a feed-forward layer; None as for `hidden_size`."""
    word_map: str
    """Layer map of the word relations, as `0-2-4-6`."""
    layer_map: str
    """Layer map of the layer transforming relations."""
    parameters: int | None
    """Parameters of the student, embeddings included."""
    flops: int | None
    """Floating-point operations of one forward pass for one example of full length."""
    latency_ms: float | None
    """Milliseconds for one example of full length on the trial's device."""
    latency_ms_batch_32: float | None
    """Milliseconds for a batch of 32 such examples."""
    device: str | None
    """What the latencies were measured on, as `NVIDIA H200, bf16`."""
    disk_mb: float | None
    """Size of the weights in MB (10⁶ bytes)."""
    step: int
    """Optimizer steps done."""
    total_steps: int | None
    """Optimizer steps of the whole trial."""
    wall_s: float | None
    """Seconds from start to end, evaluations included."""
    gpu_s: float | None
    """Seconds times GPUs held."""
    cpu_s: float | None
    """Seconds times CPU cores held."""
    peak_memory_gib: float | None
    """Peak memory of the largest worker: of its GPU if it has one, else of the host."""
    peak_host_gib: float | None
    """Peak host memory of the largest worker."""
    energy_j: float | None
    """Joules that its GPUs used, if NVML measures them."""
    samples_per_s: float | None
    """Training examples per second at the last measurement."""
    padding: float | None
    """Share of the tokens in batches that were padding."""
    skipped: int
    """Number of bad training examples that were left out."""
    accumulation: int
    """Number of parts that its micro-batches were split into because it ran out of memory."""
    weights: dict[str, float]
    """Weight of each loss term at the end of training."""
    lr: float
    """Peak learning rate."""
    temperature: float
    """Temperature of the logit loss."""
    kept: bool
    """Whether its student is kept."""
    error: str | None
    """Why it was refused or failed."""


@dataclass(frozen=True)
class Leaderboard:
    """A run at a glance.

    Attributes:
        run: Its folder or address.
        task: Name of the task.
        metric: What scores on dev: the task's metric, or `sst2 accuracy` of `evaluate_on`.
        task_metric: What trials have at each measurement: the task's metric.
        teacher: The manifest's facts about the teacher, empty before it was scored.
        manifest: All facts of the manifest.
        rows: Complete trials best first, then the baseline, running, stopped and failed ones.
        head: Of the student, as in transformers' AutoModelFor….
        objectives: What is best.
        seeds: How many other seeds the best were confirmed with, 0 for none.
        costs: What the run has cost, part by part: trials (the baseline, other seeds and ablations
            included), teacher, targets, evaluate_on, latencies and test, each with wall_s, gpu_s,
            cpu_s, and energy_j, 0 where NVML tells nothing. Parts that were not done are not there.
    """

    run: str
    task: str
    metric: str
    task_metric: str
    head: str
    teacher: dict[str, Any]
    manifest: dict[str, Any]
    rows: list[Row]
    objectives: list[str]
    seeds: int
    costs: dict[str, dict[str, float]]

    @property
    def totals(self) -> dict[str, float]:
        """What all parts together have cost."""
        return {name: sum(cost[name] for cost in self.costs.values()) for name in COSTS}

    @property
    def best(self) -> Row | None:
        """The best complete trial."""
        return next((row for row in self.rows if row.rank == 1), None)

    @property
    def kept(self) -> list[Row]:
        """The trials whose students are kept, best first."""
        return [row for row in self.rows if row.rank is not None and row.kept]

    @property
    def baseline(self) -> Row | None:
        """The winner's depth without distillation, if it was trained."""
        rows = [row for row in self.rows if row.name == BASELINE and row.state == "complete"]
        return rows[0] if rows else None

    @property
    def teacher_score(self) -> float | None:
        """The teacher's metric on dev; it has none of the task in `evaluate_on`."""
        return self.teacher.get("dev", {}).get(self.metric)

    @property
    def lead_score(self) -> float | None:
        """The metric on dev of a document's first sentences, of summaries only."""
        return self.teacher.get("dev", {}).get(f"lead_{self.metric}")

    def count(self, state: str) -> int:
        """Returns the number of drawn trials in a state."""
        return sum(row.state == state and row.name.isdigit() for row in self.rows)


def read_leaderboard(run: RunFolder) -> Leaderboard:
    """Returns a run's leaderboard; also while it runs, and after a crash.

    Raises:
        SpecError: If the folder is not that of a run.
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
        # The other seeds of a trial are told in its own row.
        (r for r in records if r.name not in ranking.names and (r.is_drawn or r.name == BASELINE)),
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
        {"trials": _cost_of(records), **manifest.get("costs", {})},
    )


def write_leaderboard(run: RunFolder) -> Leaderboard:
    """Writes leaderboard.csv and leaderboard.json and returns what is in them."""
    board = read_leaderboard(run)
    write_atomically(
        run.leaderboard_json,
        json.dumps({**asdict(board), "totals": board.totals}, indent=2, ensure_ascii=False) + "\n",
    )
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


def flat_row(row: Row) -> dict[str, Any]:
    """Returns a row of leaderboard.csv: each term's weight is a column of its own."""
    flat = asdict(row)
    weights = flat.pop("weights")
    return {**flat, **{f"weight_{name}": weight for name, weight in weights.items()}}
