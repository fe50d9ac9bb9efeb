"""A teacher from scratch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lkd_tune.config.settings.base import Settings


class Architecture(Settings):
    """A BERT from scratch, with a vocabulary of the task's training text."""

    layers: int = Field(6, ge=1)
    hidden_size: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    intermediate_size: int | None = Field(None, ge=8)
    """Width of the feed-forward layers; none: 4 × hidden_size."""
    dropout: float = Field(0.1, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the first weights; a narrow, deep model needs more than BERT's."""
    vocabulary: Literal["words", "wordpiece", "unigram"] = "words"
    """`words`: whole words, lower-cased, for small generated text; `wordpiece` or `unigram`: pieces
    of words, case and accents kept, for real text in any language."""
    vocabulary_size: int = Field(8000, ge=100)
    """Largest number of tokens; `words` keeps all words."""
