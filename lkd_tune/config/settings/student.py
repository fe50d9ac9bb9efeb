"""Settings of the student: its depth, its width, and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from lkd_tune.config.settings.base import Settings

# The values of `student.init` that do not name a model.
INIT_KEYWORDS = ("teacher", "random")
# What does not apply to a model that `student.init` names, which has its own.
SHAPE_KEYS = ("depth", "layers", "hidden_size", "heads", "intermediate_size")


@dataclass(frozen=True)
class InitModel:
    """What is known of a model that `student.init` names.

    Attributes:
        depth: Its number of layers.
        own_tokenizer: Whether it has other tokens than the teacher.
    """

    depth: int
    own_tokenizer: bool = False


def model_name(init: str) -> str:
    """Returns the last part of a folder, a URI or a hub id."""
    return init.rstrip("/").rpartition("/")[2]


class StudentSettings(Settings):
    """The student model."""

    depth: int = Field(3, ge=1)
    """Number of encoder layers, at most the teacher's."""
    init: str = "teacher"
    """Initial weights. `teacher`: embeddings, head and some layers are copied from the teacher;
    `random`; or a local folder or hub id of a pre-trained model. Such a model keeps its own depth
    and width: depth, layers, hidden_size, heads and intermediate_size do not apply to it. If its
    tokens differ from the teacher's, it keeps its own tokenizer, and the losses can compare nothing
    but logits of whole texts."""
    layers: Literal["matched", "bottom", "top"] | tuple[int, ...] = "matched"
    """Layers that are copied from the teacher. `matched`: those of the word map; `bottom`: the
    first ones; `top`: the last ones; or a list such as [1, 2, 4], where 1 is the first layer."""
    hidden_size: int | None = Field(None, ge=8)
    """Width of the hidden states. A narrower student keeps the teacher's most important dimensions,
    heads and neurons, measured once on training text. Default: the teacher's."""
    heads: int | None = Field(None, ge=1)
    """Attention heads of a layer. Default: hidden_size divided by the size of the teacher's heads,
    or in the teacher's proportion where heads have a size of their own. Groups of heads that share
    keys and values stay whole."""
    intermediate_size: int | None = Field(None, ge=8)
    """Neurons of a feed-forward layer. Default: in the teacher's proportion to hidden_size."""
    vocab: Literal["teacher", "trim"] = "teacher"
    """`teacher`: the whole vocabulary. `trim`: only tokens that occur in the training text, special
    tokens and single characters; the student's tokenizer is trimmed too."""

    @field_validator("layers")
    @classmethod
    def _check_layers(
        cls, layers: str | tuple[int, ...], info: ValidationInfo
    ) -> str | tuple[int, ...]:
        init = info.data.get("init", "teacher")
        if layers != "matched" and init == "random":
            raise ValueError(
                f"{_text(layers)} selects layers of the teacher, but student.init is {init}; leave "
                "layers out, or use init: teacher"
            )
        if not isinstance(layers, str) and (
            sorted({*layers}) != [*layers] or not layers or layers[0] < 1
        ):
            raise ValueError(
                f"{_text(layers)} is not strictly increasing from 1 on; name each layer of the "
                "teacher once and in order, 1 is the first"
            )
        return layers

    @property
    def starts_from_model(self) -> bool:
        """Whether the weights are those of a given model, not made from the teacher's."""
        return self.init not in INIT_KEYWORDS

    def with_shape_of(self, models: Mapping[str, InitModel]) -> StudentSettings:
        """Returns the settings with the depth of the model in `init` in place of a carved one's.

        Args:
            models: The models that are known, by name; of others nothing changes.
        """
        if self.init not in models:
            return self
        own = {key: type(self).model_fields[key].default for key in SHAPE_KEYS}
        return self.model_copy(update={**own, "depth": models[self.init].depth})

    def start_layers(self, teacher_layers: int, word_map: Sequence[int]) -> tuple[int, ...]:
        """Returns the teacher layer (1 is the first) that each layer starts as a copy of.

        Args:
            teacher_layers: The teacher's number of encoder layers.
            word_map: Map of the word relations in the first step.
        """
        if self.layers == "matched":
            return tuple(word_map[1:])
        if self.layers == "bottom":
            return tuple(range(1, self.depth + 1))
        if self.layers == "top":
            return tuple(range(teacher_layers - self.depth + 1, teacher_layers + 1))
        return self.layers

    def layers_problem(self, teacher_layers: int | None = None) -> str | None:
        """Returns why a list of layers does not fit the depth or the teacher; None if it does.

        Args:
            teacher_layers: The teacher's number of encoder layers. Default: it is not checked.
        """
        if isinstance(self.layers, str):
            return None
        if len(self.layers) != self.depth:
            return (
                f"{_text(self.layers)} has {len(self.layers)} layers, a student of depth "
                f"{self.depth} needs {self.depth}"
            )
        if teacher_layers is not None and self.layers[-1] > teacher_layers:
            return (
                f"{_text(self.layers)} names layer {self.layers[-1]}, the teacher has "
                f"{teacher_layers} layers; use 1–{teacher_layers}"
            )
        return None


def _text(layers: str | tuple[int, ...]) -> str:
    return layers if isinstance(layers, str) else str([*layers])
