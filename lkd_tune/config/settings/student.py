"""Settings of the student: its depth, its width, and where its weights come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lkd_tune.config.settings.base import Settings


class StudentSettings(Settings):
    """The student model."""

    depth: int = Field(3, ge=1)
    """Number of encoder layers, at most the teacher's."""
    init: str = "teacher"
    """Initial weights. `teacher`: embeddings, mapped layers and head are copied from the teacher;
    `random`; or a local folder or hub id of a model with the same depth."""
    hidden_size: int | None = Field(None, ge=8)
    """Width of the hidden states. A narrower student keeps the teacher's most important dimensions,
    heads and neurons, measured once on training text. Default: the teacher's."""
    heads: int | None = Field(None, ge=1)
    """Attention heads of a layer. Default: hidden_size divided by the size of the teacher's
    heads."""
    intermediate_size: int | None = Field(None, ge=8)
    """Neurons of a feed-forward layer. Default: in the teacher's proportion to hidden_size."""
    vocab: Literal["teacher", "trim"] = "teacher"
    """`teacher`: the whole vocabulary. `trim`: only tokens that occur in the training text, special
    tokens and single characters; the student's tokenizer is trimmed too."""
