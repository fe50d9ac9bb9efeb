"""A narrower copy of a teacher: its most important heads, neurons and hidden dimensions."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.teacher import Inference, TeacherSettings
from lkd_tune.config.settings.width import Width, asks_for_width, resolve_width
from lkd_tune.data.types import Tokens
from lkd_tune.models.importance import Importance, load_importance
from lkd_tune.models.loading import read_config

# What the axes of each weight stand for, by the names of the modules of BERT, RoBERTa, XLM-R,
# DistilBERT and ELECTRA. A bias or a norm has the first of them.
_AXES: tuple[tuple[re.Pattern[str], tuple[str | None, ...]], ...] = tuple(
    (re.compile(pattern), axes)
    for pattern, axes in (
        (r"\.embeddings\.\w+_embeddings$", (None, "embedding")),
        (r"\.embeddings\.LayerNorm$", ("embedding",)),
        (r"\.embeddings_project$", ("hidden", "embedding")),
        (r"\.attention\.(self\.)?(query|key|q_lin|k_lin)$", ("query", "hidden")),
        (r"\.attention\.(self\.)?(value|v_lin)$", ("value", "hidden")),
        (r"\.attention\.(output\.dense|out_lin)$", ("hidden", "value")),
        (r"\.layer\.\d+\.(intermediate\.dense|ffn\.lin1)$", ("neurons", "hidden")),
        (r"\.layer\.\d+\.(output\.dense|ffn\.lin2)$", ("hidden", "neurons")),
        (r"\.layer\.\d+\..*(LayerNorm|layer_norm)$", ("hidden",)),
        (r"^\w+\.pooler\.dense$|^classifier\.dense$|^pre_classifier$", ("pooled", "hidden")),
        (r"^classifier(\.out_proj)?$", (None, "pooled")),
        (r"^qa_outputs$", (None, "hidden")),
        (r"^(cls\.predictions\.transform|lm_head)\.dense$|^vocab_transform$", ("hidden", "hidden")),
        (r"^(cls\.predictions\.transform\.LayerNorm|lm_head\.layer_norm)$", ("hidden",)),
        (r"^vocab_layer_norm$", ("hidden",)),
        (r"^(cls\.predictions|lm_head)\.decoder$|^vocab_projector$", (None, "hidden")),
        (r"^generator_predictions\.dense$", ("embedding", "hidden")),
        (r"^generator_predictions\.LayerNorm$", ("embedding",)),
        (r"^generator_lm_head$", (None, "embedding")),
        (r"^(cls\.predictions|lm_head)$", (None,)),  # their bias, one number a token
    )
)
_LAYER = re.compile(r"\.layer\.(\d+)\.")
_SIZES = {
    "hidden_size": ("hidden_size", "dim"),
    "heads": ("num_attention_heads", "n_heads"),
    "intermediate_size": ("intermediate_size", "hidden_dim"),
}

Kept = dict[tuple[str, int], np.ndarray]


def read_width(model: str) -> Width:
    """Returns the width of a model folder or hub id.

    Raises:
        SpecError: If there is no such model, or it says no width.
    """
    return _width_in(read_config(model), model)


def teacher_width(settings: TeacherSettings) -> Width:
    """Returns the width of a teacher, trained already or not.

    Raises:
        SpecError: If its model can't be had.
    """
    start = settings.model or (settings.train and settings.train.model)
    if start:
        return read_width(start)
    assert settings.train is not None  # TeacherSettings sees to it
    form = settings.train.architecture
    assert form is not None
    return Width(form.hidden_size, form.heads, form.intermediate_size or 4 * form.hidden_size)


def student_source(
    settings: StudentSettings, name: str | None, teacher: Any, tokens: Tokens, on: torch.device,
    cache: Path, inference: Inference,
) -> Any:  # fmt: skip
    """Returns what a student is carved from: the teacher, narrowed if the student is narrower.

    Every rank calls.

    Args:
        settings: The student.
        name: The teacher's folder or hub id.
        teacher: The teacher; None if there is none.
        tokens: The training split, on which its parts are scored.
        on: Where the teacher runs.
        cache: Folder that the scores are put in.
        inference: How the teacher is run.

    Raises:
        SpecError: If the teacher can't be narrowed so.
    """
    if teacher is None or settings.init not in ("teacher", "random"):
        return teacher
    if not asks_for_width(settings):
        return teacher
    assert name is not None  # there is a teacher
    found = width_of(teacher)
    width = resolve_width(settings, found)
    if width == found:
        return teacher
    if settings.init == "random":
        return type(teacher)(resized(teacher.config, width))
    importance = load_importance(name, teacher, tokens, on, cache, inference)
    return narrow(teacher, width, importance)


def check_given_width(settings: StudentSettings, student: Any) -> None:
    """Refuses a given model of another width than was asked for.

    Raises:
        SpecError: With the first of its sizes that differs.
    """
    found = width_of(student)
    for key in _SIZES:
        asked = getattr(settings, key)
        if asked is not None and asked != getattr(found, key):
            message = f"is {asked}, but {settings.init} has {getattr(found, key)}; leave it out"
            raise SpecError(Problem("", f"student.{key}", message))


def width_of(model: Any) -> Width:
    """Returns a model's width."""
    return width_of_config(model.config)


def width_of_config(config: Any) -> Width:
    """Returns the width that a configuration stands for."""
    return _width_in(config.to_dict(), type(config).__name__)


def narrow(model: Any, width: Width, importance: Importance) -> Any:
    """Returns a copy of a model, all its layers included, with its most important parts.

    Whole heads are kept where they keep their size; where they get smaller, each keeps its most
    important channels, and queries are scaled so that attention scores stay what they were.

    Args:
        model: A classifier or another model of the families meant here.
        width: Of the copy; nowhere more than the model's.
        importance: Scores of the model's parts.

    Raises:
        SpecError: If the model has weights that are not known here.
    """
    full = width_of(model)
    kept = _keep(full, width, importance)
    weights = model.state_dict()
    pools = any(_axes_of(name)[:1] == ("pooled",) for name in weights)
    projects = any(name.endswith("embeddings_project.weight") for name in weights)
    if projects and width.hidden_size == model.config.embedding_size:
        # ELECTRA leaves the projection of its embeddings out where it is not needed.
        message = (
            f"{width.hidden_size} is the size of the teacher's embeddings, which are projected to "
            "its hidden states; use another size"
        )
        raise SpecError(Problem("", "student.hidden_size", message))
    scale = (width.head_size / full.head_size) ** 0.5

    def index(axis: str, layer: int) -> np.ndarray | None:
        if axis == "embedding":
            return None if projects else kept["hidden", -1]
        if axis == "pooled" and not pools:
            return kept["hidden", -1]
        return kept.get((axis, layer), kept.get((axis, -1)))

    narrowed = {}
    for name, tensor in weights.items():
        match = _LAYER.search(name)
        layer = int(match[1]) if match else -1
        for dim, axis in enumerate(_axes_of(name)[: tensor.dim()]):
            chosen = index(axis, layer) if axis else None
            if chosen is not None:
                tensor = tensor.index_select(dim, torch.from_numpy(chosen).to(tensor.device))
        if scale != 1 and re.search(r"\.(query|q_lin)\.(weight|bias)$", name):
            tensor = tensor * scale
        narrowed[name] = tensor
    copied = type(model)(resized(model.config, width))
    copied.load_state_dict(narrowed)
    return copied.eval()


def _keep(full: Width, width: Width, importance: Importance) -> Kept:
    """Returns the indices to keep by (axis, layer); layer -1 for what lies outside the layers."""
    kept: Kept = {
        ("hidden", -1): _largest(importance.hidden, width.hidden_size),
        ("pooled", -1): _largest(importance.pooled, width.hidden_size),
    }
    for layer in range(len(importance.value)):
        kept["neurons", layer] = _largest(importance.neurons[layer], width.intermediate_size)
        value = importance.value[layer].reshape(full.heads, full.head_size)
        query = importance.query[layer].reshape(full.heads, full.head_size)
        heads = _largest(np.square(value).sum(-1), width.heads)
        for axis, scores in (("value", value), ("query", query)):
            kept[axis, layer] = np.concatenate(
                [h * full.head_size + _largest(scores[h], width.head_size) for h in heads]
            )
    return kept


def _largest(scores: np.ndarray, number: int) -> np.ndarray:
    """Returns the indices of the largest scores, in rising order; of equal ones the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:number])


def _axes_of(name: str) -> tuple[str | None, ...]:
    module = name.rpartition(".")[0]
    for pattern, axes in _AXES:
        if pattern.search(module):
            return axes
    message = (
        f"{name} is no weight of a BERT, RoBERTa, XLM-R, DistilBERT or ELECTRA; leave "
        "student.hidden_size, heads and intermediate_size out"
    )
    raise SpecError(Problem("", "student", message))


def resized(config: Any, width: Width) -> Any:
    """Returns a copy of a configuration with another width."""
    config = copy.deepcopy(config)
    if getattr(config, "embedding_size", None) == config.hidden_size:
        config.embedding_size = width.hidden_size
    for key, names in _SIZES.items():
        # Only names of the family's own: another would be written beside them.
        own = next(name for name in reversed(names) if name in config.to_dict())
        setattr(config, own, getattr(width, key))
    return config


def _width_in(config: dict[str, Any], model: str) -> Width:
    sizes = {}
    for key, names in _SIZES.items():
        found = [config[name] for name in names if isinstance(config.get(name), int)]
        if not found:
            message = f"{model} says no {names[0]}; encoders such as BERT's are supported"
            raise SpecError(Problem("", "teacher", message))
        sizes[key] = found[0]
    return Width(**sizes)
