"""One distillation: the training loop on DeepSpeed, an iterator over measurements."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.config.settings.width import asks_for_width
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.batches import (
    Batches,
    count_micro_batches,
    evaluation_steps,
    max_accumulation,
    used_examples,
)
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.bad_examples import (
    BadExamplesError,
    DivergedError,
    find_bad_examples,
    may_come_from_examples,
)
from lkd_tune.distillation.balance import with_loss_scales
from lkd_tune.distillation.batch_losses import BatchLosses
from lkd_tune.distillation.build import (
    build_engine,
    build_initial_student,
    build_targets,
    load_teacher,
    name_labels,
    save_student,
    uses_bf16,
    uses_bf16_matmul,
)
from lkd_tune.distillation.checkpoint import load_checkpoint, save_checkpoint
from lkd_tune.distillation.interval import Interval, IntervalTotals, StepResult
from lkd_tune.distillation.objective import TrainingObjective, totals
from lkd_tune.distillation.trial_text import load_trial_text
from lkd_tune.evaluation.scoring import evaluate
from lkd_tune.models.comparable import make_comparable
from lkd_tune.models.size import measure_size
from lkd_tune.models.vocabulary import Vocabulary, trim_vocabulary
from lkd_tune.records.measurement import Measurement, ModelSize, TrainingProgress
from lkd_tune.runtime.cpu import bf16_matmul
from lkd_tune.runtime.deepspeed import collect_garbage, forget_zero3_modules, free_engine
from lkd_tune.runtime.process_group import (
    all_reduce_max,
    all_reduce_sum,
    device,
    ensure_process_group,
)
from lkd_tune.runtime.usage import GpuEnergy, PeakMemory, count_parameters

# Steps between two checks of the losses: each check waits for the GPU.
_CHECK_STEPS = 20


class Distillation:
    """One distillation on this rank; iterate over it for its measurements.

    Every method is collective: all ranks of the process group call it in the same order with the
    same arguments, and get the same result. A process without a group creates its own.
    """

    def __init__(
        self,
        spec: TrialSpec,
        *,
        cache: Path | None = None,
        accumulation: int = 1,
        skipped: Sequence[int] = (),
        on_progress: Callable[[TrainingProgress], object] | None = None,
    ):
        """Loads data and models and builds the DeepSpeed engine.

        Args:
            spec: The trial.
            cache: Folder for tokenized data. Default: the user's cache.
            accumulation: Parts that each micro-batch is split into to save memory, at most into
                single examples. The effective batch and the objective stay the same.
            skipped: Training examples, counted from 0, that are left out of their batches.
            on_progress: Called every few steps with the current progress.

        Raises:
            SpecError: If the teacher, the data or another model can't be loaded or do not fit.
            ValueError: If the process group does not have the trial's number of workers.
        """
        ensure_process_group()
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        if self._world != spec.resources.workers:
            raise ValueError(
                f"the trial is for {spec.resources.workers} workers, the group has {self._world}"
            )
        self.spec = spec = with_loss_scales(spec, cache)
        torch.manual_seed(spec.seed)
        text = load_trial_text(spec, device(), cache)
        self._tokenizer, self._train = text.tokenizer, text.tokens
        self._cache = cache
        self._splits: dict[str, Tokens] = {}
        self._kind = kind_of(spec.task)
        teacher = load_teacher(spec, cache)
        # Training text is tokenized before trimming, so that it has the same words in both models.
        self._vocabulary: Vocabulary | None = None
        if spec.student.vocab == "trim":
            self._vocabulary = trim_vocabulary(self._tokenizer, self._train, device())
            self._tokenizer = self._vocabulary.tokenizer
        student = build_initial_student(spec, teacher, self._train, self._vocabulary, cache)
        name_labels(student.config, spec, cache)
        self.parameters = count_parameters(student)
        self._accumulation = accumulation
        self._micro_batches = min(max_accumulation(spec), accumulation) * count_micro_batches(spec)
        shares = self._world * self._micro_batches
        self._skipped = list(skipped)
        lengths, labelled = self._train.lengths, self._train.labelled
        used = used_examples(spec, labelled)
        self._unlabelled = int((~labelled[used]).sum())
        self._batches = Batches(
            lengths, spec.train, spec.seed, shares=shares, skipped=skipped, examples=used
        )
        self.total = self._batches.total_steps()
        self._evaluations = evaluation_steps(spec.train, self.total)
        self._bf16 = uses_bf16(spec.train)
        fast = uses_bf16_matmul(spec.train, student.config.hidden_size)
        self._matmul = bf16_matmul if fast else contextlib.nullcontext
        self._config = student.config
        self._engine = build_engine(
            make_comparable(student, spec.losses, teacher, spec.seed),
            spec,
            self.total,
            micro_batches=self._micro_batches,
            bf16=self._bf16,
        )
        targets = None
        if spec.losses.needs_teacher:
            targets = build_targets(spec, teacher, text.teacher_tokens, cache, bf16=self._bf16)
        layers = teacher.config.num_hidden_layers if teacher is not None else 0
        self._losses: Any = BatchLosses(
            spec, self._train, self._vocabulary, targets, layers, self.total, text.teacher_tokens
        )
        # Each rank drops out different units.
        torch.manual_seed(spec.seed + 1 + self._rank)
        self._on_progress = on_progress
        self._step = 0
        self._train_s = 0.0
        self._last: Measurement | None = None
        self._repeat_last = False
        self._memory = PeakMemory()
        self._energy = GpuEnergy()

    def __enter__(self) -> Distillation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Distillation:
        return self

    def __next__(self) -> Measurement:
        """Trains to the next evaluation and returns its measurement.

        Raises:
            StopIteration: After the measurement of the last step.
            DivergedError: If a loss is not finite.
        """
        if self._last is not None and self._last.finished:
            if self._repeat_last:
                self._repeat_last = False
                return self._last
            raise StopIteration
        until = next(step for step in self._evaluations if step > self._step)
        # A term that has ended is reported for the interval in which it ends, and for none after.
        objective = self._losses.at(self._step).objective
        self._last = self._measure(self._train_until(until), objective)
        return self._last

    def measure_size(self, latencies: Path) -> ModelSize | None:
        """Returns the size and latency of the student, timed on rank 0; None on other ranks.

        Args:
            latencies: Folder with the latencies of architectures that were timed before.
        """
        if self._rank != 0:
            return None
        head, length = self._kind.head, self.spec.task.max_length
        return measure_size(
            self._config, head, length, device(), bf16=self._bf16, latencies=latencies
        )

    def tokens(self, split: str) -> Tokens:
        """Returns a split in the student's tokens."""
        if split not in self._splits:
            self._splits[split] = load_tokens(
                self.spec.task, split, self._tokenizer, cache=self._cache
            )
        return self._splits[split]

    def evaluate(self, split: str) -> dict[str, float]:
        """Returns all metrics of the student on a split."""
        return evaluate(
            self._engine,
            self.spec.task,
            self.tokens(split),
            device(),
            batch_divisor=self._accumulation,
        )

    def save_checkpoint(self, folder: Path) -> None:
        """Writes all that `load_checkpoint` needs to resume.

        Only called between measurements, for example after `next()`.
        """
        progress = {
            "step": self._step,
            "train_s": self._train_s,
            "energy_j": self._energy.of_all_workers(),
            "last": self._last.model_dump(mode="json") if self._last else None,
        }
        save_checkpoint(self._engine, folder, progress)

    def load_checkpoint(self, folder: Path) -> None:
        """Resumes from a checkpoint, written with any number of workers and any ZeRO stage.

        Losses continue as without the interruption. With another number of workers, sums are
        rounded differently and different units are dropped out.

        Raises:
            FileNotFoundError: If the checkpoint is missing or incomplete.
        """
        progress = load_checkpoint(self._engine, folder, self.spec.seed)
        self._step, self._train_s = progress["step"], progress["train_s"]
        if self._rank == 0:
            self._energy = GpuEnergy(progress["energy_j"] or 0.0)
        self._last = Measurement.model_validate(progress["last"]) if progress["last"] else None
        self._repeat_last = self._last is not None and self._last.finished

    def save_student(self, folder: Path) -> None:
        """Writes the student as a complete Hugging Face folder."""
        sharded = self.spec.resources.zero_stage == 3
        save_student(self._engine, self._tokenizer, folder, sharded=sharded)

    def close(self) -> None:
        """Frees the engine and its memory. The process group stays for the next distillation."""
        if self._engine is None:
            return
        stage, self._losses = self.spec.resources.zero_stage, None
        self._engine.destroy()
        if stage == 0:
            free_engine(self._engine)
        elif stage == 3:
            forget_zero3_modules(self._engine.module)
        self._engine = None
        if stage > 0:
            collect_garbage()

    def _train_until(self, until: int) -> IntervalTotals:
        """Trains to a step and returns the totals of the steps."""
        self._engine.train()
        interval = Interval()
        for batch in self._batches.starting_at(self._step):
            try:
                with self._matmul():
                    result = self._train_step(batch)
            except Exception as error:
                self._attribute_error(batch, error)
                raise
            interval.add(batch, result)
            self._step += 1
            if self._step % _CHECK_STEPS == 0 or self._step == until:
                self._check_losses(interval)
                if self._on_progress is not None:
                    seconds = self._train_s + interval.seconds
                    self._on_progress(TrainingProgress(self._step, self.total, seconds))
            if self._step == until:
                break
        interval_totals = interval.totals()
        self._train_s += interval_totals.seconds
        return interval_totals

    def _train_step(self, batch: np.ndarray) -> StepResult:
        """Takes one optimizer step on a batch, the examples of all ranks."""
        # Batches are sorted by length, so the ranks' shares have similar lengths.
        share = batch[self._rank :: self._world]
        step = self._step
        losses = self._losses.at(step)
        maps = losses.maps(step)
        micro_batches = [
            losses.read(part, step) for part in np.array_split(share, self._micro_batches)
        ]
        # The divisors are known before the sums. They cover all micro-batches and ranks, so the
        # objective does not depend on the number of either.
        counts = losses.objective.counts(micro_batches, maps)
        if self._world > 1:
            counts = all_reduce_sum(counts.to(device())).cpu()
        seen = []
        # DeepSpeed divides by the micro-batches and averages over ranks; the counts include both.
        scale = self._world * self._engine.gradient_accumulation_steps()
        for micro_batch in micro_batches:
            sums = losses.sums(self._engine, micro_batch, maps)
            self._memory.sample()
            self._engine.backward(losses.objective.weighted(sums, counts) * scale)
            self._engine.step()
            seen.append(totals(sums))
        return StepResult(
            torch.stack(seen).sum(0),
            counts,
            tokens=int(self._train.lengths[share].sum()),
            positions=sum(each.mask.numel() for each in micro_batches),
        )

    def _measure(self, interval: IntervalTotals, objective: TrainingObjective) -> Measurement:
        metrics = self.evaluate("dev")
        return Measurement(
            step=self._step,
            total_steps=self.total,
            score=metrics[self.spec.task.metric],
            metrics=metrics,
            losses=objective.report(interval.losses),
            lr=self._engine.get_lr()[0],
            parameters=self.parameters,
            train_s=self._train_s,
            samples_per_s=interval.examples / interval.seconds,
            padding=interval.padding,
            skipped=len(self._skipped),
            unlabelled=self._unlabelled,
            peak_host_gib=all_reduce_max(self._memory.host_gib),
            peak_memory_gib=all_reduce_max(self._memory.gib),
            energy_j=self._energy.of_all_workers(),
        )

    def _check_losses(self, interval: Interval) -> None:
        """Checks that the losses since the last check are finite. Collective.

        Raises:
            BadExamplesError: With the examples whose losses are not finite.
            DivergedError: If a loss is not finite, but no single example causes it.
        """
        found = interval.find_non_finite()
        if found is None:
            return
        step = self._step - found.steps_ago
        bad = self._find_bad_examples(found.batch, step, collective=True)
        if bad is not None:
            raise bad
        raise DivergedError(
            f"the loss {found.term} is {found.total} at step {step + 1}, and no single example "
            "causes it; try a smaller train.lr or weights"
        )

    def _attribute_error(self, batch: np.ndarray, error: Exception) -> None:
        """Finds the examples that cause an error, if any do.

        Other ranks do not know of the error. They wait for this one until the search ends them.

        Raises:
            BadExamplesError: With these examples.
        """
        # Building a narrower student is collective.
        needs_others = self._world > 1 and asks_for_width(self.spec.student)
        if needs_others or not may_come_from_examples(error):
            return
        bad = self._find_bad_examples(batch, self._step, collective=False)
        # If every example of the batch raises, the cause is not in the examples.
        if bad is not None and not {*batch} <= {each.example for each in bad.examples}:
            raise bad from error

    def _find_bad_examples(
        self, batch: np.ndarray, step: int, *, collective: bool
    ) -> BadExamplesError | None:
        """Returns an error that names the bad examples of a batch. It ends this distillation."""
        losses, cache, skipped = self._losses, self._cache, self._skipped
        at_once = max(1, len(batch) // (self._world * self._micro_batches))
        self.close()  # frees memory for another copy of the student
        return find_bad_examples(
            losses, batch, step, at_once, cache=cache, skipped=skipped, collective=collective
        )
