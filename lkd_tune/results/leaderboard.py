"""One row a trial, read from a run folder: what came out and what it cost."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.space import load_recorded_space
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.ranking import Ranking, rank_trials
from lkd_tune.records.run import BASELINE, RunFolder, TrialRecord

COSTS = ("wall_s", "gpu_s", "cpu_s", "energy_j")


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        rank: 1 for the best of the complete trials; None for all others.
        on_front: Whether no other complete trial is as good in every objective and better in one.
        name: The trial's name; `baseline` for plain training without distillation.
        origin: `published` or a trial of another run, if the search began with it.
        state: complete, stopped (by the scheduler), refused (above a limit), failed, or running.
        score: Metric on dev at the last measurement; where `evaluate_on` gives the score, that of
            the fine-tuned student, None before there is one.
        task_score: In that case the run's own metric on dev at the last measurement.
        share: Score as a share of the teacher's, 0 for a negative one; None where the teacher's
            is not positive.
        mean: Mean score of other seeds, where it was confirmed; low and high: its 95 % interval.
        failed_seeds: Other seeds that ended without a score.
        ties_with_best: Whether the other seeds do not tell it from the best.
        test_score: Metric on test, where it was measured.
        test_mean: Mean metric on test of the other seeds.
        depth: Encoder layers.
        hidden_size: Width of the hidden states; None where it is the teacher's or a given
            model's. So are the next two.
        heads: Attention heads of a layer.
        intermediate_size: Neurons of a feed-forward layer.
        word_map: Layer map of the word relations.
        layer_map: Layer map of the layer transforming relations.
        parameters: Embeddings included.
        flops: Of one forward pass for one example of full length.
        latency_ms: Of one example of full length on the trial's device.
        latency_ms_batch_32: Of 32 of them together.
        device: What these were measured on, as `NVIDIA H200, bf16`.
        disk_mb: Size of the weights.
        step: Optimizer steps done.
        total_steps: Of the whole trial.
        wall_s: Seconds from start to end, evaluations included.
        gpu_s: Seconds times GPUs held.
        cpu_s: Seconds times CPU cores held.
        peak_memory_gib: Of the largest worker.
        peak_host_gib: The same on the host, where peak_memory_gib is of a GPU.
        energy_j: Joules that its GPUs took, where NVML tells.
        samples_per_s: Training examples per second at the last measurement.
        accumulation: Parts that its micro-batches were cut into, as memory was short.
        padding: Share of the tokens in batches that were padding.
        skipped: Training examples that were left out as bad ones.
        weights: Of the loss terms, by name.
        lr: Peak learning rate.
        temperature: Of the logit loss.
        kept: Whether the student is kept.
        error: Why it failed.
    """

    rank: int | None
    on_front: bool
    name: str
    origin: str | None
    state: str
    score: float | None
    task_score: float | None
    share: float | None
    mean: float | None
    low: float | None
    high: float | None
    failed_seeds: int
    ties_with_best: bool | None
    test_score: float | None
    test_mean: float | None
    depth: int
    hidden_size: int | None
    heads: int | None
    intermediate_size: int | None
    word_map: str
    layer_map: str
    parameters: int | None
    flops: int | None
    latency_ms: float | None
    latency_ms_batch_32: float | None
    device: str | None
    disk_mb: float | None
    step: int
    total_steps: int | None
    wall_s: float | None
    gpu_s: float | None
    cpu_s: float | None
    peak_memory_gib: float | None
    peak_host_gib: float | None
    energy_j: float | None
    samples_per_s: float | None
    padding: float | None
    skipped: int
    accumulation: int
    weights: dict[str, float]
    lr: float
    temperature: float
    kept: bool
    error: str | None


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
        _row(run, record, ranking, metric, teacher_score, confirmed.get(record.name))
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
    confirmed: dict[str, Any] | None,
) -> Row:
    spec, outcome, size = record.spec, record.outcome, record.size
    confirmed = confirmed or {}
    seeds_on_test = confirmed.get("test_scores")
    last = record.measurements[-1] if record.measurements else None
    trained = [*record.measurements, *([record.fine_tuned] if record.fine_tuned else [])]
    share = None
    if record.score is not None and teacher_score is not None and teacher_score > 0:
        share = max(0.0, record.score / teacher_score)
    test = run.trial(record.name) / "test.json"
    tests = json.loads(test.read_text("utf-8")) if test.exists() else {}
    return Row(
        rank=ranking.rank(record.name),
        on_front=record.name in ranking.front,
        name=record.name,
        origin=record.origin,
        state=record.state,
        score=record.score,
        task_score=last.score if last and spec.evaluate_on is not None else None,
        share=share,
        mean=confirmed.get("mean"),
        low=confirmed.get("low"),
        high=confirmed.get("high"),
        failed_seeds=len(confirmed.get("failed", [])),
        ties_with_best=confirmed.get("ties_with_best"),
        test_score=tests.get(metric),
        test_mean=statistics.mean(seeds_on_test) if seeds_on_test else None,
        depth=spec.student.depth,
        hidden_size=spec.student.hidden_size,
        heads=spec.student.heads,
        intermediate_size=spec.student.intermediate_size,
        word_map=_map_text(spec.layer_map.word),
        layer_map=_map_text(spec.layer_map.layer),
        parameters=last.parameters if last else None,
        flops=size.flops if size else None,
        latency_ms=size.latency_ms if size else None,
        latency_ms_batch_32=size.latency_ms_batch_32 if size else None,
        device=size.device if size else None,
        disk_mb=size.disk_mb if size else None,
        step=last.step if last else 0,
        total_steps=last.total_steps if last else None,
        wall_s=outcome.wall_s if outcome else None,
        gpu_s=outcome.gpu_s if outcome else None,
        cpu_s=outcome.cpu_s if outcome else None,
        peak_memory_gib=max((m.peak_memory_gib for m in trained), default=None),
        peak_host_gib=max((m.peak_host_gib for m in trained), default=None),
        energy_j=_energy(record),
        samples_per_s=last.samples_per_s if last else None,
        padding=last.padding if last else None,
        skipped=last.skipped if last else 0,
        accumulation=record.accumulation,
        weights={name: term.weight for name, term in spec.last_losses},
        lr=spec.train.lr,
        temperature=spec.losses.logits.temperature,
        kept=record.kept,
        error=outcome.error if outcome else None,
    )


def _cost_of(records: list[TrialRecord]) -> dict[str, float]:
    outcomes = [record.outcome for record in records if record.outcome]
    held = {
        name: sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("wall_s", "gpu_s", "cpu_s")
    }
    return {**held, "energy_j": sum(_energy(record) or 0.0 for record in records)}


def _energy(record: TrialRecord) -> float | None:
    """Returns the joules of a trial's training and, where there was one, its fine-tuning."""
    ends = [*record.measurements[-1:], *([record.fine_tuned] if record.fine_tuned else [])]
    known = [end.energy_j for end in ends if end.energy_j is not None]
    return sum(known) if known else None


def _map_text(entries: tuple[int, ...] | str) -> str:
    return entries if isinstance(entries, str) else "-".join(map(str, entries))


def flat_row(row: Row) -> dict[str, Any]:
    """Returns a row of leaderboard.csv: each term's weight is a column of its own."""
    flat = asdict(row)
    weights = flat.pop("weights")
    return {**flat, **{f"weight_{name}": weight for name, weight in weights.items()}}
