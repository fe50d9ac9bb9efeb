"""One distillation: the loop, a generator of measurements, on DeepSpeed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.config.settings.losses import TERM_NAMES
from lkd_tune.config.settings.width import asks_for_width
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.batches import (
    Batches,
    count_micro_batches,
    evaluation_steps,
    most_accumulation,
)
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.augmentation import load_training_tokens
from lkd_tune.distillation.bad_examples import (
    BadExamplesError,
    DivergedError,
    look_again,
    may_be_an_examples,
)
from lkd_tune.distillation.batch_losses import BatchLosses
from lkd_tune.distillation.build import (
    build_engine,
    build_targets,
    load_teacher,
    name_labels,
    starting_student,
    uses_bf16,
    uses_bf16_matmul,
)
from lkd_tune.distillation.checkpoint import load_checkpoint, save_checkpoint
from lkd_tune.distillation.objective import totals
from lkd_tune.distillation.saving import save_student
from lkd_tune.evaluation.scoring import evaluate
from lkd_tune.models.loading import load_tokenizer
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

# Losses are looked at this often: to look is to wait for the GPU.
_CHECK_EVERY = 20


@dataclass(frozen=True)
class _Progress:
    """What was seen between two evaluations, over all workers.

    Attributes:
        losses: (sum, count) of each term, shape (terms, 2).
        examples: Training examples.
        seconds: Of training.
        padding: Share of the tokens that were padding.
    """

    losses: torch.Tensor
    examples: int
    seconds: float
    padding: float


class Distillation:
    """One distillation on this rank; iterate over it for its measurements.

    Every method is collective: all ranks of the process group call it in the same order with the
    same arguments, and get the same result. A process in no group makes one of its own.
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
            spec: What to do.
            cache: Folder for tokenised data; none: the user's cache.
            accumulation: Cuts each micro-batch into so many, where memory is short, at most into
                single examples; the effective batch and the objective stay the same.
            skipped: Training examples, counted from 0, that are left out of their batches.
            on_progress: Is told every few steps how far it is.

        Raises:
            SpecError: If the teacher, the data or a starting point can't be had or do not fit.
        """
        ensure_process_group()
        self.spec = spec
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        if self._world != spec.resources.workers:
            raise ValueError(
                f"the trial is for {spec.resources.workers} workers, the group has {self._world}"
            )
        torch.manual_seed(spec.seed)
        self._tokenizer = load_tokenizer(spec.teacher or spec.student.init)
        self._cache = cache
        self._splits: dict[str, Tokens] = {}
        self._train = load_training_tokens(
            spec.task, spec.teacher, self._tokenizer, device(), cache=cache
        )
        self._kind = kind_of(spec.task)
        teacher = load_teacher(spec, cache)
        # Training text stays in the tokens of the teacher, so that both have the same words.
        self._vocabulary: Vocabulary | None = None
        if spec.student.vocab == "trim":
            self._vocabulary = trim_vocabulary(self._tokenizer, self._train, device())
            self._tokenizer = self._vocabulary.tokenizer
        student = starting_student(spec, teacher, self._train, self._vocabulary, cache)
        name_labels(student.config, spec, cache)
        self.parameters = count_parameters(student)
        self._accumulation = accumulation
        self._micro_batches = min(most_accumulation(spec), accumulation) * count_micro_batches(spec)
        shares = self._world * self._micro_batches
        self._skipped = list(skipped)
        lengths = self._train.lengths
        self._batches = Batches(lengths, spec.train, spec.seed, shares=shares, skipped=skipped)
        self.total = self._batches.total_steps()
        self._evaluations = evaluation_steps(spec.train, self.total)
        self._bf16 = uses_bf16(spec.train)
        fast = uses_bf16_matmul(spec.train, student.config.hidden_size)
        self._products = bf16_matmul if fast else contextlib.nullcontext
        self._config = student.config
        self._engine = build_engine(
            student, spec, self.total, micro_batches=self._micro_batches, bf16=self._bf16
        )
        targets = None
        if spec.losses.needs_teacher:
            targets = build_targets(spec, teacher, self._train, cache, bf16=self._bf16)
        layers = teacher.config.num_hidden_layers if teacher is not None else 0
        self._losses: Any = BatchLosses(spec, self._train, self._vocabulary, targets, layers)
        # Each rank drops out other units.
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
        self._last = self._measure(self._train_until(until))
        return self._last

    def measure_size(self, latencies: Path) -> ModelSize | None:
        """Returns what the student's architecture costs, timed on rank 0; None on other ranks.

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
            self._engine, self.spec.task, self.tokens(split), device(), cut=self._accumulation
        )

    def save_checkpoint(self, folder: Path) -> None:
        """Writes all that `load_checkpoint` needs to go on.

        Only between measurements, as after `next()`.
        """
        progress = {
            "step": self._step,
            "train_s": self._train_s,
            "energy_j": self._energy.of_all_workers(),
            "last": self._last.model_dump(mode="json") if self._last else None,
        }
        save_checkpoint(self._engine, folder, progress)

    def load_checkpoint(self, folder: Path) -> None:
        """Goes on from a checkpoint, of any number of workers and any ZeRO stage.

        Losses are from here on the same as without a stop. With another number of workers they
        are so up to the order of sums, and other units are dropped out.

        Raises:
            FileNotFoundError: If the checkpoint is not there or not whole.
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
        """Frees the engine and its memory; the process group stays for the next one."""
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

    def _train_until(self, until: int) -> _Progress:
        """Trains to a step and returns what was seen on the way."""
        begin = time.perf_counter()
        # Weights change at evaluations only, so they are the same for all that is seen here.
        self._losses.set_step_weights(self._step)
        self._engine.train()
        seen = torch.zeros(len(TERM_NAMES), dtype=torch.float64, device=device())
        counts = torch.zeros(len(TERM_NAMES), dtype=torch.float64)
        unchecked: list[tuple[np.ndarray, torch.Tensor]] = []
        examples, tokens, places = 0, 0, 0
        for batch in self._batches.starting_at(self._step):
            try:
                with self._products():
                    sums, counted, padded = self._train_step(batch)
            except Exception as error:
                self._blame(batch, error)
                raise
            unchecked.append((batch, sums))
            seen += sums
            counts += counted
            tokens += int(self._train.lengths[batch[self._rank :: self._world]].sum())
            places += padded
            self._step += 1
            examples += len(batch)
            if self._step % _CHECK_EVERY == 0 or self._step == until:
                self._refuse_nan(unchecked)
                unchecked = []
                if self._on_progress is not None:
                    so_far = self._train_s + time.perf_counter() - begin
                    self._on_progress(TrainingProgress(self._step, self.total, so_far))
            if self._step == until:
                break
        seconds = time.perf_counter() - begin
        self._train_s += seconds
        tokens, places = all_reduce_sum(torch.tensor([tokens, places], device=device())).tolist()
        losses = torch.stack([all_reduce_sum(seen), counts.to(device())], dim=1)
        return _Progress(losses, examples, seconds, padding=1 - tokens / places)

    def _train_step(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Takes one optimizer step; returns sums and counts, (terms,), and tokens with padding.

        The sums are this rank's and stay on the device: to look at them is to wait for it. The
        counts are all ranks', on the host.
        """
        # Sorted by length, so that the ranks' shares of a batch are of even lengths.
        share = batch[self._rank :: self._world]
        losses, step = self._losses, self._step
        maps = losses.maps(step)
        micro_batches = [
            losses.read(part, step) for part in np.array_split(share, self._micro_batches)
        ]
        # What the sums are divided by is known before any of them: over all micro-batches
        # and ranks, so that neither number of them changes the objective.
        counts = losses.objective.counts(micro_batches, maps)
        if self._world > 1:
            counts = all_reduce_sum(counts.to(device())).cpu()
        seen = []
        # DeepSpeed divides by the micro-batches and averages over ranks; we did both already.
        scale = self._world * self._engine.gradient_accumulation_steps()
        for micro_batch in micro_batches:
            sums = losses.sums(self._engine, micro_batch, maps)
            self._memory.sample()
            self._engine.backward(losses.objective.weighted(sums, counts) * scale)
            self._engine.step()
            seen.append(totals(sums))
        places = sum(each.mask.numel() for each in micro_batches)
        return torch.stack(seen).sum(0), counts, places

    def _measure(self, progress: _Progress) -> Measurement:
        metrics = self.evaluate("dev")
        losses = self._losses.objective.report(progress.losses)
        return Measurement(
            step=self._step,
            total_steps=self.total,
            score=metrics[self.spec.task.metric],
            metrics=metrics,
            losses=losses,
            lr=self._engine.get_lr()[0],
            parameters=self.parameters,
            train_s=self._train_s,
            samples_per_s=progress.examples / progress.seconds,
            padding=progress.padding,
            skipped=len(self._skipped),
            peak_host_gib=all_reduce_max(self._memory.host_gib),
            peak_memory_gib=all_reduce_max(self._memory.gib),
            energy_j=self._energy.of_all_workers(),
        )

    def _refuse_nan(self, unchecked: Sequence[tuple[np.ndarray, torch.Tensor]]) -> None:
        """Looks at the steps since the last look: their batches and sums, up to the current step.

        All ranks see the same, so they all raise or none.
        """
        found = all_reduce_sum(torch.stack([sums for _, sums in unchecked])).tolist()
        for i, (batch, _) in enumerate(unchecked):
            step = self._step - len(unchecked) + i
            for name, total in zip(TERM_NAMES, found[i], strict=True):
                if math.isfinite(total):
                    continue
                # All later steps are lost by this one.
                if (bad := self._look_again(batch, step, collective=True)) is not None:
                    raise bad
                raise DivergedError(
                    f"the loss {name} is {total} at step {step + 1}, and no example alone is at "
                    "fault; try a smaller train.lr or weights"
                )

    def _blame(self, batch: np.ndarray, error: Exception) -> None:
        """Names the examples that are to blame for an error, if any are.

        Only this rank knows of it. The others wait for it in vain and are ended by the search.

        Raises:
            BadExamplesError: With those examples.
        """
        # One rank alone does not make a narrower student.
        alone = self._world > 1 and asks_for_width(self.spec.student)
        if alone or not may_be_an_examples(error):
            return
        bad = self._look_again(batch, self._step, collective=False)
        # What every example does is not the examples' fault.
        if bad is not None and not {*batch} <= {each.example for each in bad.examples}:
            raise bad from error

    def _look_again(
        self, batch: np.ndarray, step: int, *, collective: bool
    ) -> BadExamplesError | None:
        """Returns what is wrong with the examples of a batch; this distillation is over then."""
        losses, cache, skipped = self._losses, self._cache, self._skipped
        room = max(1, len(batch) // (self._world * self._micro_batches))
        self.close()  # makes room for a student on its own
        return look_again(
            losses, batch, step, room, cache=cache, skipped=skipped, collective=collective
        )
