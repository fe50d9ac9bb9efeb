"""The parts of a distillation: teacher, student, targets, and the DeepSpeed engine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.loading import count_labels, label_names
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.types import Tokens
from lkd_tune.distillation.optimizer import build_optimizer
from lkd_tune.distillation.targets.base import LiveTeacher
from lkd_tune.distillation.targets.gpu_store import DeviceTargets, open_targets
from lkd_tune.distillation.targets.store import StoredTargets, parts_that_fit
from lkd_tune.distillation.targets.store_build import get_or_build_store
from lkd_tune.distillation.targets.vectors import VECTOR_PARTS
from lkd_tune.evaluation.scoring import check_labels
from lkd_tune.files.cache import cache_dir
from lkd_tune.models.comparable import student_in
from lkd_tune.models.loading import load_model, save_model
from lkd_tune.models.student import build_student, check_width, teacher_of_width
from lkd_tune.models.vocabulary import Vocabulary
from lkd_tune.runtime.cpu import gains_from_bf16_matmul
from lkd_tune.runtime.deepspeed import load_deepspeed
from lkd_tune.runtime.process_group import device


def load_teacher(spec: TrialSpec, cache: Path | None) -> Any:
    """Returns a trial's teacher, None if it has none.

    Raises:
        SpecError: If it does not exist, was trained for another task, or has too few layers.
    """
    if spec.teacher is None:
        return None
    # A teacher that runs in bf16 may be too large for fp32. "auto" keeps the precision of its
    # files, which a student starts from.
    dtype: Any = "auto" if spec.inference.precision == "bf16" else torch.float32
    teacher = load_model(spec.teacher, kind_of(spec.task).head, dtype=dtype)
    check_labels(teacher.config, spec.teacher, spec.task, cache=cache)
    depth, layers = spec.student.depth, teacher.config.num_hidden_layers
    if spec.student.init == "teacher" and depth > layers:
        message = f"depth {depth} is above the teacher's {layers} layers"
        raise SpecError(Problem("", "student.depth", message))
    if problem := spec.student.layers_problem(layers):
        raise SpecError(Problem("", "student.layers", problem))
    return teacher


def build_initial_student(
    spec: TrialSpec,
    teacher: Any,
    tokens: Tokens,
    vocabulary: Vocabulary | None,
    cache: Path | None,
) -> Any:
    """Returns a trial's student before the first step. Every rank calls it.

    Args:
        spec: The trial.
        teacher: Its teacher, None if it has none.
        tokens: The training split, on which the teacher's parts are scored for a narrower student.
        vocabulary: The student's trimmed one; None if it has the teacher's.
        cache: Folder for the scores. Default: the user's cache.

    Raises:
        SpecError: If the model in `student.init` does not exist, or does not fit the teacher or the
            settings.
    """
    settings, kind = spec.student, kind_of(spec.task)
    labels = count_labels(spec.task, cache=cache)
    source = teacher_of_width(
        settings, spec.teacher, teacher, tokens, device(), cache or cache_dir(), spec.inference
    )
    layers: tuple[int, ...] = ()
    if settings.init == "teacher":
        teacher_layers = teacher.config.num_hidden_layers
        word, _ = spec.layer_map.at_step(
            0, seed=spec.seed, teacher_layers=teacher_layers, depth=settings.depth
        )
        layers = settings.start_layers(teacher_layers, word)
    student = build_student(settings, source, layers, labels, kind.head)
    check_width(settings, student)
    if vocabulary is not None:
        vocabulary.trim(student)
    return student


def build_targets(
    spec: TrialSpec, teacher: Any, tokens: Tokens, cache: Path | None, *, bf16: bool
) -> LiveTeacher | StoredTargets | DeviceTargets:
    """Returns stored targets if they are small enough, otherwise the live teacher."""
    assert spec.teacher is not None  # TrialSpec checks it
    kind = kind_of(spec.task)
    # `load_teacher` has checked that the head's width is the task's number of classes.
    classes, needs = teacher.config.num_labels, spec.losses.needs
    fitting = parts_that_fit(spec.targets, tokens, teacher.config, classes, kind)
    if spec.losses.needs_padding or not needs <= fitting:
        return LiveTeacher(
            teacher, kind, device(), bf16=bf16, inference=spec.inference, collective=True
        )
    # Each rank calls it, as its node may have its own cache. One rank of each node builds.
    vectors = [part for part in VECTOR_PARTS if part in needs]
    folder = get_or_build_store(
        spec.teacher,
        tokens,
        kind,
        device(),
        cache or cache_dir(),
        inference=spec.inference,
        vectors=vectors,
    )
    return open_targets(folder, tokens, device(), vectors)


def name_labels(config: Any, spec: TrialSpec, cache: Path | None) -> None:
    """Sets the task's classes in a model's configuration."""
    problem_types = {
        "classification": "single_label_classification",
        "regression": "regression",
        "multi_label": "multi_label_classification",
    }
    config.problem_type = problem_types.get(spec.task.kind)
    names = label_names(spec.task, cache=cache)
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}


def uses_bf16(train: TrainSettings) -> bool:
    """Whether a trial trains in bfloat16 on this machine."""
    if train.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(
            including_emulation=False  # older GPUs emulate it, at best as fast as fp32
        )
    return train.precision == "bf16"


def uses_bf16_matmul(train: TrainSettings, width: int) -> bool:
    """Whether a trial trains in float32 with bfloat16 matrix products on this machine.

    Args:
        train: The settings.
        width: The student's hidden size.
    """
    return train.precision == "auto" and device().type == "cpu" and gains_from_bf16_matmul(width)


def build_engine(
    student: Any, spec: TrialSpec, total: int, *, micro_batches: int, bf16: bool
) -> Any:
    """Returns DeepSpeed's engine around a student.

    Args:
        student: Its model, as `make_comparable` returns it.
        spec: The trial.
        total: Optimizer steps of the whole training.
        micro_batches: Number per worker and step.
        bf16: Whether to train in bfloat16.
    """
    train = spec.train
    if train.activation_checkpointing:
        # If unset, transformers logs that it disables the cache. Encoders do not use it.
        student.config.use_cache = False
        student_in(student).activation_checkpointing_enable()
    stage, workers = spec.resources.zero_stage, spec.resources.workers
    if stage == 0:
        # DeepSpeed does not know the precision: the optimizer handles it.
        student.to(device(), torch.bfloat16 if bf16 else torch.float32)
    optimizer, schedule = build_optimizer(student, train, total, sharded=stage > 0)
    config = {
        # DeepSpeed only counts micro-batches, it does not see them.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": train.max_grad_norm if stage > 0 else 0.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,  # torch's AdamW
        "bf16": {"enabled": bf16 and stage > 0},
        "steps_per_print": 10**9,
        # Its timer waits for the GPU twice in each step and each forward pass of an evaluation.
        "timers": {"throughput": {"enabled": False}},
    }
    engine, *_ = load_deepspeed().initialize(
        model=student,
        optimizer=optimizer,
        lr_scheduler=schedule,
        config=config,
        dist_init_required=False,
    )
    if stage == 0 and workers == 1:
        # Without this, it copies each gradient into a buffer and back.
        engine.enable_backward_allreduce = False
    return engine


def save_student(engine: Any, tokenizer: Any, folder: Path, *, sharded: bool) -> None:
    """Writes the model of an engine as a complete Hugging Face folder. Every rank calls it.

    Args:
        engine: DeepSpeed's.
        tokenizer: The student's.
        folder: Where to write.
        sharded: Whether each rank has only a part of the weights, as in ZeRO stage 3.
    """
    student = student_in(engine.module)
    gathered: Any = contextlib.nullcontext()
    if sharded:
        gathered = load_deepspeed().zero.GatheredParameters(
            list(student.parameters()), modifier_rank=None
        )
    with gathered:
        if dist.get_rank() == 0:
            weights = {name: t.detach().cpu() for name, t in student.state_dict().items()}
            save_model(student, tokenizer, folder, weights)
    dist.barrier()
