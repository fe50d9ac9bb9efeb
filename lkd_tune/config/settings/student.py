"""Settings of the student: its depth, its width, and where its weights come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lkd_tune.config.settings.base import Settings


class StudentSettings(Settings):
    """The model to find."""

    depth: int = Field(3, ge=1)
    """Number of encoder layers, at most the teacher's."""
    init: str = "teacher"
    """`teacher`: embeddings, mapped layers and head carved from the teacher; `random`; or a folder
    or hub id to start from (its depth must agree)."""
    hidden_size: int | None = Field(None, ge=8)
    """Width of the hidden states; none: the teacher's. A narrower student keeps the teacher's most
    important dimensions, heads and neurons, measured once on training text."""
    heads: int | None = Field(None, ge=1)
    """Attention heads of a layer; none: as many of the teacher's size as hidden_size holds."""
    intermediate_size: int | None = Field(None, ge=8)
    """Neurons of a feed-forward layer; none: in the teacher's proportion to hidden_size."""
    vocab: Literal["teacher", "trim"] = "teacher"
    """`trim`: only the tokens that occur in the training text, special ones and single characters;
    the student's tokenizer is trimmed to match."""
