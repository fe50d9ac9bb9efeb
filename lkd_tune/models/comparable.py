"""What terms compare beyond a model's own output: attention vectors, and projected hidden states.

B examples, N positions, H hidden size of the student, H' that of the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.losses.attention import AttentionVectors
from lkd_tune.models.families import size_in
from lkd_tune.models.width.axes import ATTENTION_ROLES, Axes


class AttentionHooks:
    """Keeps the queries, keys and values that a model computes while it is watched.

    Layers are counted from 1, as in a layer map. A model that is never watched gets no hooks.
    """

    def __init__(self, model: Any):
        self._model, self._heads = model, 0
        # Not this object: the hooks would make a circle of references to the model.
        self._watched: set[int] = set()
        self._seen: dict[tuple[int, str], Tensor] = {}
        self._registered = False

    @contextmanager
    def watching(self, layers: Sequence[int]) -> Iterator[None]:
        """Keeps the vectors of some layers in the model's next forward pass.

        The recomputation of activation checkpointing runs outside, so it keeps none.

        Raises:
            SpecError: If the model has no query, key and value modules of one size.
        """
        if layers and not self._registered:
            self._register()
        self._seen.clear()
        self._watched.update(layers)
        try:
            yield
        finally:
            self._watched.clear()

    def take(self, layers: Sequence[int]) -> AttentionVectors:
        """Returns the vectors of the last forward pass, and forgets them."""
        query, key, value = (
            tuple(self._seen[layer, role] for layer in layers) for role in ATTENTION_ROLES
        )
        vectors = AttentionVectors(query, key, value, self._heads)
        self._seen.clear()
        return vectors

    def _register(self) -> None:
        # Now, and not when this object is made: ZeRO-3 gathers weights for the backward pass by
        # hooks that change a module's output, and these here have to see the changed one.
        check_attention(self._model)
        self._heads = size_in(self._model.config.to_dict(), "heads") or 1
        for layer, role, module in Axes(self._model).attention():
            keep = partial(_keep, self._watched, self._seen, (layer + 1, role))
            module.register_forward_hook(keep)
        self._registered = True


def _keep(
    watched: set[int],
    seen: dict[tuple[int, str], Tensor],
    key: tuple[int, str],
    module: Any,
    inputs: Any,
    output: Tensor,
) -> None:
    if key[0] in watched:
        # The first call is on the words, others on DeBERTa's relative positions.
        seen.setdefault(key, output)


def check_attention(model: Any, name: str | None = None) -> int:
    """Returns the number of elements of a model's queries, after checking that it has some.

    Args:
        model: The model; its weights may be on the meta device.
        name: What an error message calls it. Default: the name of its class.

    Raises:
        SpecError: If any layer has no query, key and value modules of one size.
    """
    try:
        found = {(layer, role): module for layer, role, module in Axes(model).attention()}
    except SpecError:  # it has other parts
        found = {}
    layers = size_in(model.config.to_dict(), "layers") or 0
    sizes = {module.out_features for module in found.values()}
    if len(found) != layers * len(ATTENTION_ROLES) or len(sizes) != 1:
        message = (
            f"{name or type(model).__name__} has no query, key and value modules of one size; "
            "leave it out"
        )
        raise SpecError(Problem("", "losses.attention", message))
    return found[0, "query"].out_features


def check_relation_heads(heads: int, width: int, whose: str) -> None:
    """Checks that vectors can be divided into relation heads.

    Raises:
        SpecError: If they can't.
    """
    if width % heads:
        message = (
            f"{heads} relation heads do not divide the {whose}'s queries of {width} elements; use "
            "a divisor of both models' hidden sizes"
        )
        raise SpecError(Problem("", "losses.attention.heads", message))


class ComparableStudent(torch.nn.Module):
    """A student, with all that is trained or watched beside it for its losses.

    Attributes:
        student: The model.
        projection: From the student's width to the teacher's; None if they are equal or hidden
            states are not compared. It is trained as part of this module, so that it works with
            ZeRO and is in checkpoints.
    """

    def __init__(self, student: Any, projection: torch.nn.Linear | None):
        super().__init__()
        self.student, self.projection = student, projection
        self._attention = AttentionHooks(student)

    @property
    def config(self) -> Any:
        """The student's configuration."""
        return self.student.config

    def forward(
        self,
        *,
        projected_layers: int = 0,
        first_word: bool = False,
        attention_layers: int = 0,
        **inputs: Any,
    ) -> Any:
        """Returns the student's output, with more entries if they are asked for.

        Args:
            projected_layers: The number of last layers for the entry `projected_states`, each
                (B, N, H'), or (B, 1, H') of the first word. Without a projection there is none.
            first_word: Whether to project the first word only.
            attention_layers: The number of last layers for the entry `attention_vectors`.
            inputs: The student's.
        """
        depth = self.config.num_hidden_layers
        watched = range(depth + 1 - attention_layers, depth + 1)
        with self._attention.watching(watched):
            output = self.student(**inputs)
        if projected_layers and self.projection is not None:
            states = torch.stack(output.hidden_states[-projected_layers:], dim=1)
            chosen = states[:, :, :1] if first_word else states
            # Once for all layers: ZeRO-3 gathers the weights each time.
            output["projected_states"] = self.projection(chosen).unbind(1)
        if attention_layers:
            output["attention_vectors"] = self._attention.take(watched)
        return output


def make_comparable(student: Any, losses: LossSettings, teacher: Any, seed: int) -> Any:
    """Returns a student that computes all that its losses compare.

    It is the student itself if its own output is enough. No other random number changes.

    Args:
        student: The model.
        losses: The terms.
        teacher: The teacher; None if there is none.
        seed: The trial's.

    Raises:
        SpecError: If the attention term can't compare these models.
    """
    needs, projection = losses.needs, None
    if "attention" in needs:
        heads = losses.attention.heads or size_in(teacher.config.to_dict(), "heads") or 1
        for whose, model in (("teacher", teacher), ("student", student)):
            check_relation_heads(heads, check_attention(model), whose)
    if "hidden_states" in needs:
        ours, theirs = student.config.hidden_size, teacher.config.hidden_size
        projection = _projection(ours, theirs, seed) if ours != theirs else None
    if projection is None and "attention" not in needs:
        return student
    return ComparableStudent(student, projection)


def student_in(model: Any) -> Any:
    """Returns the student alone, as it is saved, of what `make_comparable` returned."""
    return model.student if isinstance(model, ComparableStudent) else model


def _projection(width: int, to: int, seed: int) -> torch.nn.Linear:
    """Returns a linear map with random weights of its own generator."""
    linear = torch.nn.utils.skip_init(torch.nn.Linear, width, to)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Keeps the size of a vector's elements.
        linear.weight.normal_(0.0, width**-0.5, generator=generator)
        linear.bias.zero_()
    return linear
