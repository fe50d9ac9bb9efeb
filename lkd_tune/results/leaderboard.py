"""The leaderboard of a run: one row for each trial, with its result and what it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lkd_tune.records.trial_record import BASELINE, LABELS_ALONE

_COST_KEYS = ("wall_s", "gpu_s", "cpu_s", "energy_j")


@dataclass(frozen=True)
class Row:
    """A trial on the leaderboard; `COLUMNS` says how each field is computed and shown."""

    rank: int | None
    """1 for the best complete trial; None for trials that are not ranked."""
    on_front: bool
    """Whether it is on the Pareto front: no other complete trial is as good in every objective and
    better in one."""
    name: str
    """The trial's name, as `0007`."""
    origin: str | None
    """`recipe labels` or a trial of another run, if the search started from its settings; `labels
    alone` of a winner's student that was trained without distillation at the end."""
    distilled: bool
    """Whether its losses read the teacher's outputs. False: it was trained on the labels alone."""
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
    init: str
    """What the student started from: `teacher`, `random`, or a model."""
    layers: str | None
    """Teacher layers that the student started from: `bottom`, `top` or a list as `1-2-4`. None if
    they are those of its word map, or if it did not start from the teacher."""
    hidden_size: int | None
    """Width of the hidden states; None if it is the teacher's or that of a given model."""
    heads: int | None
    """Attention heads of a layer; None as for `hidden_size`."""
    intermediate_size: int | None
    """Neurons of a feed-forward layer; None as for `hidden_size`."""
    word_map: str
    """Layer map of the word relations, as `0-2-4-6`; '' if the student started from another model
    and no losses compare layers."""
    layer_map: str
    """Layer map of the layer transforming relations."""
    parameters: int | None
    """Parameters of the student, embeddings included."""
    embedding_parameters: int | None
    """Parameters of its word embeddings; None if they were not counted."""
    vocab: str
    """Its vocabulary: `teacher`, or `trim` for that of the training text."""
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
    unlabelled: int
    """Number of training examples without a label, from `task.unlabelled`."""
    skipped: int
    """Number of bad training examples that were left out."""
    accumulation: int
    """Number of parts that its micro-batches were split into because it ran out of memory."""
    recipe: str
    """The recipe that its losses are, or start from."""
    weights: dict[str, float]
    """Weight of each loss term at the end of training."""
    relations_until: float | None
    """Share of the steps after which only the logits counted; None if no term ended early."""
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
    """The results of a run: its trials, its teacher and what it cost."""

    run: str
    """The run's folder or address."""
    task: str
    """Name of the task."""
    metric: str
    """What the score on dev is: the task's metric, or `sst2 accuracy` with `evaluate_on`."""
    task_metric: str
    """The task's metric, which trials have at each measurement."""
    head: str
    """The student's head, as in transformers' AutoModelFor…."""
    teacher: dict[str, Any]
    """What the manifest says of the teacher; empty before it was scored."""
    manifest: dict[str, Any]
    """The whole manifest."""
    rows: list[Row]
    """Complete trials best first, then running, stopped, refused and failed ones."""
    objectives: list[str]
    """Names of the objectives of the search."""
    seeds: int
    """Number of other seeds that the best trials were confirmed with; 0 for none."""
    seed_scores: dict[str, list[float]]
    """Scores on dev of these seeds, by trial."""
    costs: dict[str, dict[str, float]]
    """What each part of the run has cost: trials (with other seeds and ablations), teacher,
    targets, evaluate_on, latencies, loss_scales and test. Each has wall_s, gpu_s, cpu_s and
    energy_j; energy_j is 0 if NVML did not measure it. Parts that were not run are left out."""

    @property
    def totals(self) -> dict[str, float]:
        """The costs of all parts, added up."""
        return {name: sum(cost[name] for cost in self.costs.values()) for name in _COST_KEYS}

    @property
    def best(self) -> Row | None:
        """The best complete trial."""
        return next((row for row in self.rows if row.rank == 1), None)

    @property
    def drawn(self) -> list[Row]:
        """The trials that the search drew, which are those of `search.trials`."""
        return [row for row in self.rows if row.name.isdigit() and row.origin != LABELS_ALONE]

    @property
    def kept(self) -> list[Row]:
        """The trials whose students are kept, best first."""
        return [row for row in self.rows if row.rank is not None and row.kept]

    @property
    def baseline(self) -> Row | None:
        """The winner's student trained on the labels alone, once it is complete.

        If more trials have found another winner since, it is that of the earlier one. It may be
        the winner itself.
        """
        name = self.manifest.get("baseline", BASELINE)
        rows = [row for row in self.rows if row.name == name and row.state == "complete"]
        return rows[0] if rows else None

    @property
    def teacher_score(self) -> float | None:
        """The teacher's metric on dev; None with `evaluate_on`, for which it has no score."""
        return self.teacher.get("dev", {}).get(self.metric)

    @property
    def lead_score(self) -> float | None:
        """For summaries: the metric on dev of each document's first sentences."""
        return self.teacher.get("dev", {}).get(f"lead_{self.metric}")

    def count(self, state: str) -> int:
        """Returns the number of the trials that the search drew in a state."""
        return sum(row.state == state for row in self.drawn)


def flat_row(row: Row) -> dict[str, Any]:
    """Returns a row of leaderboard.csv, in which each term's weight has its own column."""
    flat = asdict(row)
    weights = flat.pop("weights")
    return {**flat, **{f"weight_{name}": weight for name, weight in weights.items()}}
