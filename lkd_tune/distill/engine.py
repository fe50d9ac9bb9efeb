"""One distillation: the loop, a generator of measurements, on DeepSpeed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.distill.augmentation import load_training_tokens
from lkd_tune.distill.batches import Batches, count_micro_batches, most_accumulation
from lkd_tune.distill.cost import GpuEnergy, PeakMemory, count_parameters
from lkd_tune.distill.evaluate import evaluate
from lkd_tune.distill.models import build_student, forward, load_tokenizer, save_model
from lkd_tune.distill.objective import TERMS, Objective
from lkd_tune.distill.process_group import (
    device,
    ensure_process_group,
    largest,
    load_deepspeed,
    summed,
)
from lkd_tune.distill.setup import build_engine, load_teacher, name_labels, uses_bf16
from lkd_tune.distill.size import measure_size
from lkd_tune.distill.target_store import StoredTargets, ensure_store, stored_targets_fit
from lkd_tune.distill.targets import LiveTeacher
from lkd_tune.distill.tasks.data import count_labels
from lkd_tune.distill.tasks.kinds import kind_of
from lkd_tune.distill.tokens import Tokens, load_tokens
from lkd_tune.distill.vocabulary import Vocabulary, trim_vocabulary
from lkd_tune.distill.width import check_given_width, student_source
from lkd_tune.spec.measurement import Measurement
from lkd_tune.spec.run import cache_dir
from lkd_tune.spec.settings import TrainSettings
from lkd_tune.spec.size import ModelSize
from lkd_tune.spec.trial import TrialSpec

# Losses are looked at this often: to look is to wait for the GPU.
_CHECK_EVERY = 20


class DivergedError(RuntimeError):
    """A loss is not finite; going on would be in vain."""


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


def distill(spec: TrialSpec, *, cache: Path | None = None) -> Iterator[Measurement]:
    """Trains a student and gives a measurement at each evaluation, the last one at the end.

    Args:
        spec: What to do.
        cache: Folder for tokenised data; none: the user's cache.

    Raises:
        SpecError: If the teacher, the data or a starting point can't be had or do not fit.
        DivergedError: If a loss is not finite.
    """
    with Distillation(spec, cache=cache) as distillation:
        yield from distillation


def evaluation_steps(train: TrainSettings, total: int) -> list[int]:
    """Returns the steps at which a student is scored: the end, half of it, a quarter, …

    The geometric grid is that of successive halving: scores are wanted where a scheduler decides.
    """
    return sorted({max(1, round(total / 2**k)) for k in range(train.evaluations)})


class Distillation:
    """One distillation on this rank; iterate over it for its measurements.

    Every method is collective: all ranks of the process group call it in the same order with the
    same arguments, and get the same result. A process in no group makes one of its own.
    """

    def __init__(self, spec: TrialSpec, *, cache: Path | None = None, accumulation: int = 1):
        """Loads data and models and builds the DeepSpeed engine.

        Args:
            spec: What to do.
            cache: Folder for tokenised data; none: the user's cache.
            accumulation: Cuts each micro-batch into so many, where memory is short, at most into
                single examples; the effective batch and the objective stay the same.

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
        source = spec.teacher or spec.student.init
        self._tokenizer = load_tokenizer(source)
        self._cache = cache
        self._splits: dict[str, Tokens] = {}
        self._train = load_training_tokens(
            spec.task, spec.teacher, self._tokenizer, device(), cache=cache
        )
        self._kind = kind_of(spec.task)
        labels = count_labels(spec.task, cache=cache)
        teacher = load_teacher(spec, cache)
        self._layers = teacher.config.num_hidden_layers if teacher is not None else 0
        start = student_source(
            spec.student, spec.teacher, teacher, self._train, device(), cache or cache_dir()
        )
        student = build_student(
            spec.student.init,
            start,
            self._layers_to_carve(),
            spec.student.depth,
            labels,
            self._kind.head,
        )
        check_given_width(spec.student, student)
        # Training text stays in the tokens of the teacher, so that both have the same words.
        self._vocabulary: Vocabulary | None = None
        if spec.student.vocab == "trim":
            self._vocabulary = trim_vocabulary(self._tokenizer, self._train, device())
            self._vocabulary.trim(student)
            self._tokenizer = self._vocabulary.tokenizer
        name_labels(student.config, spec, cache)
        self.parameters = count_parameters(student)
        self._accumulation = accumulation
        self._micro_batches = min(most_accumulation(spec), accumulation) * count_micro_batches(spec)
        shares = self._world * self._micro_batches
        self._batches = Batches(self._train.lengths, spec.train, spec.seed, shares=shares)
        self.total = self._batches.total_steps()
        self._evaluations = evaluation_steps(spec.train, self.total)
        self._bf16 = uses_bf16(spec.train)
        self._config = student.config
        self._engine = build_engine(
            student, spec, self.total, micro_batches=self._micro_batches, bf16=self._bf16
        )
        self._targets = self._build_targets(teacher, labels) if spec.losses.needs_teacher else None
        # Each rank drops out other units.
        torch.manual_seed(spec.seed + 1 + self._rank)
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

    _repeat_last = False

    def measure_size(self, known: Path) -> ModelSize | None:
        """Returns what the student's architecture costs, timed on rank 0; None on other ranks.

        Args:
            known: Folder with the latencies of architectures that were timed before.
        """
        if self._rank != 0:
            return None
        return measure_size(
            self._config,
            self._kind.head,
            self.spec.task.max_length,
            device(),
            bf16=self._bf16,
            known=known,
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
        """Writes all that `load_checkpoint` needs to go on exactly; each rank its own files.

        Only between measurements, as after `next()`.
        """
        self._engine.save_checkpoint(str(folder), tag="state")
        state = {
            "step": self._step,
            "train_s": self._train_s,
            "energy_j": self._energy.joules(),
            "last": self._last.model_dump_json() if self._last else None,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }
        torch.save(state, folder / f"rank_{self._rank}.pt")
        dist.barrier()

    def load_checkpoint(self, folder: Path) -> None:
        """Goes on from a checkpoint: same losses from here on as without a stop.

        Raises:
            FileNotFoundError: If the checkpoint is not there or not whole.
        """
        path, _ = self._engine.load_checkpoint(str(folder), tag="state")
        if path is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint")
        state = torch.load(folder / f"rank_{self._rank}.pt", weights_only=True)
        self._step, self._train_s = state["step"], state["train_s"]
        self._energy = GpuEnergy(state["energy_j"] or 0.0)
        self._last = Measurement.model_validate_json(state["last"]) if state["last"] else None
        self._repeat_last = self._last is not None and self._last.finished
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"])

    def save_student(self, folder: Path) -> None:
        """Writes the student as a complete Hugging Face folder."""
        student = self._engine.module
        gathered: Any = contextlib.nullcontext()
        if self.spec.resources.zero_stage == 3:
            gathered = load_deepspeed().zero.GatheredParameters(
                list(student.parameters()), modifier_rank=None
            )
        with gathered:
            if self._rank == 0:
                weights = {name: t.detach().cpu() for name, t in student.state_dict().items()}
                save_model(student, self._tokenizer, folder, weights)
        dist.barrier()

    def close(self) -> None:
        """Frees the engine and its memory; the process group stays for the next one."""
        if self._engine is None:
            return
        self._engine.destroy()
        self._engine = None
        self._targets = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _train_until(self, until: int) -> _Progress:
        """Trains to a step and returns what was seen on the way."""
        begin = time.perf_counter()
        # Weights change at evaluations only, so they are the same for all that is seen here.
        self._objective = Objective(self.spec.losses_at(self._step), self._kind)
        self._engine.train()
        seen = torch.zeros(len(TERMS), 2, dtype=torch.float64, device=device())
        examples, tokens, places = 0, 0, 0
        for batch in self._batches.starting_at(self._step):
            # Sorted by length, so that the ranks' shares of a batch are of even lengths.
            share = batch[self._rank :: self._world]
            maps = self._maps()
            micro_batches = [
                self._kind.drawn(
                    self._train.batch(part, device()), self._train, self.spec.seed, self._step
                )
                for part in np.array_split(share, self._micro_batches)
            ]
            tokens += int(self._train.lengths[share].sum())
            places += sum(micro_batch.mask.numel() for micro_batch in micro_batches)
            # What the sums are divided by is known before any of them: over all micro-batches
            # and ranks, so that neither number of them changes the objective.
            counts = summed(self._objective.counts(micro_batches, maps))
            for micro_batch in micro_batches:
                seen += self._train_micro_batch(micro_batch, maps, counts)
            self._step += 1
            examples += len(batch)
            if self._step % _CHECK_EVERY == 0 or self._step == until:
                self._refuse_nan(seen)
            if self._step == until:
                break
        seconds = time.perf_counter() - begin
        self._train_s += seconds
        tokens, places = summed(torch.tensor([tokens, places], device=device())).tolist()
        return _Progress(summed(seen), examples, seconds, padding=1 - tokens / places)

    def _train_micro_batch(self, batch: Any, maps: Any, counts: torch.Tensor) -> torch.Tensor:
        relations = self.spec.losses.needs_relations
        translate = self._vocabulary.translate if self._vocabulary else lambda batch: batch
        output = forward(self._engine, translate(batch), hidden_states=relations)
        targets = self._targets(batch, maps, relations=relations) if self._targets else None
        sums = self._objective.sums(output, targets, batch)
        self._memory.sample()
        # DeepSpeed divides by the micro-batches and averages over ranks; we did both already.
        scale = self._world * self._engine.gradient_accumulation_steps()
        self._engine.backward(self._objective.weighted(sums, counts) * scale)
        self._engine.step()
        return torch.stack(
            [torch.stack([loss.total.detach().double(), loss.count.double()]) for loss in sums]
        )

    def _measure(self, progress: _Progress) -> Measurement:
        metrics = self.evaluate("dev")
        losses = self._objective.report(progress.losses)
        return Measurement(
            step=self._step,
            total_steps=self.total,
            score=metrics[self.spec.task.metric],
            metrics=metrics,
            losses=losses,
            parameters=self.parameters,
            train_s=self._train_s,
            samples_per_s=progress.examples / progress.seconds,
            padding=progress.padding,
            peak_host_gib=largest(self._memory.host_gib),
            peak_memory_gib=largest(self._memory.gib),
            energy_j=self._energy.of_all_workers(),
        )

    def _build_targets(self, teacher: Any, classes: int | None) -> LiveTeacher | StoredTargets:
        """Returns stored targets if they are small enough, else the teacher itself."""
        assert self.spec.teacher is not None  # TrialSpec sees to it
        triple = self.spec.losses.wr_triple
        # The published form counts padding, which a store has none of.
        padding = triple.weight > 0 and triple.variant == "paper" and triple.window is not None
        layers, kind = self._layers + 1, self._kind
        fits = stored_targets_fit(self.spec.targets, self._train, layers, classes, kind)
        if padding or not fits:
            return LiveTeacher(teacher, kind, device(), bf16=self._bf16)
        cache = self._cache or cache_dir()
        # Each rank asks, as its node may have a cache of its own; one on each node builds.
        folder = ensure_store(self.spec.teacher, self._train, kind, device(), cache)
        return StoredTargets(folder, self._train, device())

    def _maps(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        spec = self.spec
        if not spec.losses.needs_relations:
            return (0,), (0,)
        return spec.layer_map.at_step(
            self._step,
            seed=spec.seed,
            teacher_layers=self._layers,
            depth=spec.student.depth,
        )

    def _layers_to_carve(self) -> tuple[int, ...]:
        """Returns the teacher layers that the student starts from: those of the word map."""
        if self.spec.student.init != "teacher":
            return ()
        word, _ = self.spec.layer_map.at_step(
            0, seed=self.spec.seed, teacher_layers=self._layers, depth=self.spec.student.depth
        )
        return word[1:]

    def _refuse_nan(self, seen: torch.Tensor) -> None:
        for name, total in zip(TERMS, summed(seen.clone())[:, 0].tolist(), strict=True):
            if not math.isfinite(total):
                raise DivergedError(
                    f"the loss {name} is {total} at or before step {self._step}; "
                    "try a smaller train.lr or weights"
                )
