"""The strength of the loss terms: the norms of their gradients before the first step.

The student has the uniform map, because with others its layers may equal those of the teacher that
they are compared with, which leaves relations without a gradient. Dropout is on, as in training.
Nothing depends on the number of workers.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from lkd_tune.config.errors import SpecError
from lkd_tune.config.loss_scales import REFERENCE, LossScales, TermScale, settings_of
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.losses import LossSettings, TermSettings
from lkd_tune.config.settings.width import asks_for_width
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.data.batches import Batches, padded_width
from lkd_tune.data.types import Batch
from lkd_tune.distillation.batch_losses import BatchLosses
from lkd_tune.distillation.build import (
    build_initial_student,
    build_targets,
    load_teacher,
    uses_bf16,
    uses_bf16_matmul,
)
from lkd_tune.distillation.targets.base import Maps
from lkd_tune.distillation.trial_text import load_trial_text
from lkd_tune.losses.terms import TERMS
from lkd_tune.models.comparable import make_comparable, student_in
from lkd_tune.models.loading import read_depth
from lkd_tune.runtime.cpu import bf16_matmul
from lkd_tune.runtime.oom import is_out_of_memory
from lkd_tune.runtime.process_group import all_reduce_sum, device, ensure_process_group

_BATCHES = 8
# Padded words that go through the models at once; fewer if memory runs out.
_MAX_WORDS = 8192

Terms = Mapping[str, Sequence[TermSettings]]
"""Settings to measure of each term, by name."""


def with_loss_scales(spec: TrialSpec, cache: Path | None = None) -> TrialSpec:
    """Returns a trial with the scales of its terms, which are measured if they are missing.

    Every rank calls it, and gets the scales of rank 0.

    Args:
        spec: The trial.
        cache: Folder for tokenized data. Default: the user's cache.

    Raises:
        SpecError: If the teacher or the data can't be loaded or do not fit.
    """
    if not spec.lacks_scales:
        return spec
    ensure_process_group()
    terms = {name: [term.model_copy(update={"weight": 1.0})] for name, term in spec.losses.active()}
    scales = measure_loss_scales([spec], terms, cache=cache).scales_of(spec.losses)
    own = torch.tensor([*scales.values()], dtype=torch.float64, device=device())
    shared = all_reduce_sum(own if dist.get_rank() == 0 else torch.zeros_like(own)).tolist()
    return spec.model_copy(update={"loss_scales": dict(zip(scales, shared, strict=True))})


def measure_loss_scales(
    specs: Sequence[TrialSpec], terms: Terms, *, cache: Path | None = None
) -> LossScales:
    """Returns the scales of some terms, each from its median strength over some students.

    Every rank of the process group calls it.

    Args:
        specs: Trials that differ in their students only. Their maps and losses do not matter.
        terms: The terms to measure.
        cache: Folder for tokenized data. Default: the user's cache.

    Raises:
        SpecError: If the teacher or the data can't be loaded or do not fit, or no student can be
            built.
    """
    others = [term for term in terms.get("logits", ()) if term != REFERENCE]
    terms = {**terms, "logits": [REFERENCE, *others]}
    assert specs[0].teacher is not None  # a trial without one has only one term
    layers = read_depth(specs[0].teacher)
    starts = {start.to_json(): start for start in (_at_start(spec, layers) for spec in specs)}
    students = measure_norms([*starts.values()], terms, cache=cache)

    def strength(name: str, place: int) -> float:
        pairs = [(norms[name][place], norms["logits"][0]) for norms in students]
        ratios = [norm / reference for norm, reference in pairs if min(norm, reference) > 0]
        logs = [math.log(ratio) for ratio in ratios if math.isfinite(ratio)]
        return math.exp(statistics.median(logs)) if logs else 0.0

    return LossScales(
        terms={
            name: tuple(
                TermScale(settings=settings_of(term), strength=strength(name, place))
                for place, term in enumerate(own)
            )
            for name, own in terms.items()
        }
    )


def measure_norms(
    specs: Sequence[TrialSpec], terms: Terms, *, cache: Path | None = None
) -> list[dict[str, list[float]]]:
    """Returns gradient norms at weight 1 for each student: by term, one for each of its settings.

    They are means over some batches of the training split. Arguments and errors are those of
    `measure_loss_scales`, except that maps count; a student that can't be built is left out.
    """
    ensure_process_group()
    first = specs[0]
    assert first.teacher is not None
    layers = read_depth(first.teacher)
    # Students with a tokenizer of their own have only one term, so nothing to be balanced.
    tokens = load_trial_text(first, device(), cache).tokens
    teacher = load_teacher(first, cache)
    rounds = _rounds(terms)
    students, problem = [], None
    torch.manual_seed(first.seed)
    for spec in specs:
        try:
            student = build_initial_student(spec, teacher, tokens, None, cache)
            students.append((spec, make_comparable(student, rounds[0], teacher, spec.seed)))
        except SpecError as error:  # its own trial will report it
            problem = error
    if problem is not None and not students:
        raise problem
    bf16 = uses_bf16(first.train)
    # If any round needs the live teacher, all have it.
    neediest = next((each for each in rounds if each.needs_padding), rounds[0])
    first = first.model_copy(update={"losses": neediest})
    targets = build_targets(first, teacher, tokens, cache, bf16=bf16)
    found = []
    for spec, student in students:
        losses = [
            BatchLosses(spec.model_copy(update={"losses": each}), tokens, None, targets, layers, 1)
            for each in rounds
        ]
        batches = Batches(tokens.lengths, spec.train, spec.seed)
        examples = list(itertools.islice(batches.starting_at(0), _BATCHES))
        fast = uses_bf16_matmul(spec.train, student.config.hidden_size)
        student.to(device(), torch.bfloat16 if bf16 else torch.float32).train()
        with bf16_matmul() if fast else contextlib.nullcontext():
            norms = [_mean_norms(student, each, examples) for each in losses]
        student.to("cpu")
        found.append(
            {name: [norms[i][name] for i in range(len(own))] for name, own in terms.items()}
        )
    return found


def _at_start(spec: TrialSpec, teacher_layers: int) -> TrialSpec:
    """Returns a trial with the uniform map, and a student that is not the teacher itself."""
    student = spec.student.model_copy(update={"vocab": "teacher"})
    is_teacher = student.init == "teacher" and student.depth == teacher_layers > 1
    if is_teacher and not asks_for_width(student):
        shallower = {"depth": teacher_layers - 1, "layers": "matched"}
        student = student.model_copy(update=shallower)
    layer_map = spec.layer_map
    if student.depth <= teacher_layers:
        uniform = preset_map("skip", teacher_layers, student.depth)
        layer_map = ResolvedLayerMap(word=uniform, layer=uniform)
    return spec.model_copy(update={"student": student, "layer_map": layer_map})


def _rounds(terms: Terms) -> list[LossSettings]:
    """Returns losses at weight 1, the i-th with the i-th settings of each term that has as many."""
    nothing = {
        name: term.model_copy(update={"weight": 0.0}) for name, term in LossSettings().terms()
    }
    return [
        LossSettings().model_copy(
            update={**nothing, **{name: own[i] for name, own in terms.items() if i < len(own)}}
        )
        for i in range(max(map(len, terms.values())))
    ]


def _mean_norms(
    student: Any, losses: BatchLosses, examples: Sequence[np.ndarray]
) -> dict[str, float]:
    """Returns the gradient norm of each active term, the mean over batches."""
    active = [name for name, _ in losses.spec.losses.active()]
    maps = losses.maps(0)
    total = dict.fromkeys(active, 0.0)
    for number, batch in enumerate(examples):
        for name, norm in _norms(student, losses, batch, maps, seed=number).items():
            total[name] += norm / len(examples)
    return total


def _norms(
    student: Any,
    losses: BatchLosses,
    examples: np.ndarray,
    maps: Maps,
    *,
    seed: int,
    max_words: int = _MAX_WORDS,
) -> dict[str, float]:
    """Returns the gradient norm of each active term on one batch.

    Args:
        student: The model.
        losses: The terms.
        examples: Of the training split, shape (examples,).
        maps: The layer maps.
        seed: Which units are dropped out; the same ones for all settings of a term.
        max_words: Padded words that go through the models at once.
    """
    width = padded_width(losses.tokens.lengths[examples])
    number = min(len(examples), -(-len(examples) * width // max_words))
    parts = [losses.read(part, 0) for part in np.array_split(examples, number)]
    torch.manual_seed(seed)
    try:
        gradients = _gradients(student, losses, parts, maps)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or number == len(examples):
            raise
        gradients = None
    if gradients is None:  # outside of the handler, whose error holds tensors
        return _norms(student, losses, examples, maps, seed=seed, max_words=max_words // 2)
    return {
        name: float(torch.stack([g.float().norm() for g in own]).norm())
        for name, own in gradients.items()
    }


def _gradients(
    student: Any, losses: BatchLosses, parts: Sequence[Batch], maps: Maps
) -> dict[str, list[torch.Tensor]]:
    """Returns the gradient of each active term, by parameter, summed over parts of a batch."""
    parameters = [p for p in student_in(student).parameters() if p.requires_grad]
    counts = losses.objective.counts(list(parts), maps).clamp(min=1).tolist()
    gradients: dict[str, list[torch.Tensor]] = {}
    for part in parts:
        sums = losses.sums(student, part, maps)
        shares = losses.objective.shares
        for term, share, loss, count in zip(TERMS, shares, sums, counts, strict=True):
            if not loss.total.requires_grad:
                continue
            own = torch.autograd.grad(
                loss.total * (share / count),
                parameters,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for before, more in zip(gradients.setdefault(term.name, []), own, strict=False):
                before += more
            gradients[term.name] = gradients[term.name] or list(own)
    return gradients
