"""What a distillation is put together from: its teacher, and the DeepSpeed engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lkd_tune.distill.evaluate import check_labels
from lkd_tune.distill.models import load_model
from lkd_tune.distill.optimizer import build_optimizer
from lkd_tune.distill.process_group import load_deepspeed
from lkd_tune.distill.tasks.data import label_names
from lkd_tune.distill.tasks.kinds import kind_of
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.settings import TrainSettings
from lkd_tune.spec.trial import TrialSpec


def load_teacher(spec: TrialSpec, cache: Path | None) -> Any:
    """Returns a trial's teacher, None if it has none.

    Raises:
        SpecError: If it does not exist, is for another task, or has too few layers.
    """
    if spec.teacher is None:
        return None
    teacher = load_model(spec.teacher, kind_of(spec.task).head)
    check_labels(teacher.config, spec.teacher, spec.task, cache=cache)
    depth = spec.student.depth
    if spec.student.init == "teacher" and depth > teacher.config.num_hidden_layers:
        message = f"depth {depth} is above the teacher's {teacher.config.num_hidden_layers} layers"
        raise SpecError(Problem("", "student.depth", message))
    return teacher


def name_labels(config: Any, spec: TrialSpec, cache: Path | None) -> None:
    """Writes the task's classes into a model's configuration."""
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
    """Returns whether a trial trains in bfloat16 here."""
    if train.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return train.precision == "bf16"


def build_engine(
    student: Any, spec: TrialSpec, total: int, *, micro_batches: int, bf16: bool
) -> Any:
    """Returns DeepSpeed's engine around a student.

    Args:
        student: Its model.
        spec: The trial.
        total: Optimizer steps of the whole training.
        micro_batches: Of each worker in a step.
        bf16: Whether in bfloat16.
    """
    train = spec.train
    optimizer, schedule = build_optimizer(student, train, total)
    config = {
        # DeepSpeed looks at no batch; it only counts micro-batches.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": {"stage": spec.resources.zero_stage},
        "zero_allow_untested_optimizer": True,  # torch's AdamW is right on any device
        "bf16": {"enabled": bf16},
        "steps_per_print": 10**9,
    }
    engine, *_ = load_deepspeed().initialize(
        model=student,
        optimizer=optimizer,
        lr_scheduler=schedule,
        config=config,
        dist_init_required=False,
    )
    return engine
