"""A student before training: made from its teacher, with random weights, or from another model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.teacher import Inference
from lkd_tune.config.settings.width import asks_for_width, resolve_width
from lkd_tune.data.types import Tokens
from lkd_tune.models.families import resize_config, width_of
from lkd_tune.models.loading import auto_model, load_config, load_model
from lkd_tune.models.stack import Stack, config_of_layers
from lkd_tune.models.width.importance import load_importance
from lkd_tune.models.width.pruning import prune_width


def build_student(
    settings: StudentSettings,
    teacher: Any,
    layers: Sequence[int],
    labels: int | None,
    head: str = "SequenceClassification",
) -> Any:
    """Returns a student in training mode.

    Args:
        settings: Its depth, and its `init`: 'teacher' (embeddings, selected encoder layers and head
            of the teacher), 'random' (its configuration with new weights), or a folder or hub id to
            start from. Its width is the teacher's.
        teacher: The teacher model; None only if `init` is a folder or hub id.
        layers: For 'teacher': the teacher layer (1 is the first) for each student layer.
        labels: Width of the head; None for that of the vocabulary.
        head: As in transformers' AutoModelFor….

    Raises:
        SpecError: If `init` names a model that does not exist or has another depth.
    """
    if settings.starts_from_model:
        student = load_model(settings.init, head, labels=labels, new_head=True)
        found = student.config.num_hidden_layers
        if found != settings.depth:
            message = f"{settings.init} has {found} layers, but student.depth is {settings.depth}"
            raise SpecError(Problem("", "student.init", message))
        return student.train()
    config = student_config(settings, teacher.config, layers)
    student = auto_model(head).from_config(config, dtype=torch.float32)
    if settings.init == "teacher":
        copy_layers(teacher, student, layers)
    return student.train()


def student_config(
    settings: StudentSettings, teacher_config: Any, layers: Sequence[int] = ()
) -> Any:
    """Returns a student's configuration: the teacher's with other layers, or that of `init`.

    Args:
        settings: The student.
        teacher_config: The teacher's.
        layers: The teacher layer for each student layer. Default: the first ones.

    Raises:
        SpecError: If `init` names a model that does not exist.
    """
    if settings.starts_from_model:
        return load_config(settings.init)
    return config_of_layers(teacher_config, layers or range(1, settings.depth + 1))


def copy_layers(model: Any, student: Any, layers: Sequence[int]) -> None:
    """Gives a student the weights of a model, as `select_layers` selects them.

    Some families leave something out of one layer: ModernBERT's first has no norm before attention.
    Another layer in its place leaves it out as well.

    Raises:
        SpecError: If other weights differ.
    """
    weights, own = select_layers(model, layers), student.state_dict()
    missing, unexpected = own.keys() - weights.keys(), weights.keys() - own.keys()
    differing = [
        name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape
    ]
    differing += [name for name in unexpected if not _is_left_out(student, name)]
    differing += [name for name in missing if not _has_left_out(model, student, name, layers)]
    if differing:
        message = (
            f"layers can't be taken from {type(model).__name__}: at another place they have other "
            f"weights, such as {differing[0]}; use another teacher"
        )
        raise SpecError(Problem("", "teacher", message))
    student.load_state_dict(weights, strict=False)


def _is_left_out(model: Any, weight: str) -> bool:
    """Whether a model has nothing in the place of a weight's module."""
    modules = dict(model.named_modules())
    return isinstance(modules.get(weight.rpartition(".")[0]), torch.nn.Identity)


def _has_left_out(model: Any, student: Any, weight: str, layers: Sequence[int]) -> bool:
    stack = Stack(student)
    layer = stack.layer_of(weight)
    return layer is not None and _is_left_out(model, stack.in_layer(weight, layers[layer] - 1))


def select_layers(model: Any, layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """Returns the weights of a model whose i-th layer is layer `layers[i]` of this one.

    Weights outside the stack of layers (embeddings, pooler, head) are those of the model.

    Args:
        model: The model to select from.
        layers: Its layers, 1 is the first; a layer may occur more than once.
    """
    stack, selected = Stack(model), {}
    for name, tensor in model.state_dict().items():
        layer = stack.layer_of(name)
        if layer is None:
            selected[name] = tensor
            continue
        for new, old in enumerate(layers):
            if old == layer + 1:
                selected[stack.in_layer(name, new)] = tensor
    return selected


def teacher_of_width(
    settings: StudentSettings,
    name: str | None,
    teacher: Any,
    tokens: Tokens,
    on: torch.device,
    cache: Path,
    inference: Inference,
) -> Any:
    """Returns the teacher that a student is made from, pruned to the student's width.

    Every rank calls it.

    Args:
        settings: The student.
        name: The teacher's folder or hub id.
        teacher: The teacher; None if there is none.
        tokens: The training split, on which the teacher's parts are scored.
        on: Where the teacher runs.
        cache: Folder for the scores.
        inference: How the teacher runs.

    Raises:
        SpecError: If the teacher can't be pruned to this width.
    """
    if teacher is None or settings.starts_from_model or not asks_for_width(settings):
        return teacher
    assert name is not None  # there is a teacher
    found = width_of(teacher)
    width = resolve_width(settings, found)
    if width == found:
        return teacher
    if settings.init == "random":
        return type(teacher)(resize_config(teacher.config, width))
    importance = load_importance(name, teacher, tokens, on, cache, inference)
    return prune_width(teacher, width, importance)


def check_width(settings: StudentSettings, student: Any) -> None:
    """Checks that a student has the width of its settings.

    Raises:
        SpecError: With the first size that differs.
    """
    if not asks_for_width(settings):
        return
    for key, found in width_of(student).sizes().items():
        asked = getattr(settings, key)
        if asked is not None and asked != found:
            message = f"is {asked}, but {settings.init} has {found}; leave it out"
            raise SpecError(Problem("", f"student.{key}", message))
