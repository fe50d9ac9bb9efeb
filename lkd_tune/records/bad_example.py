"""A training example that a distillation can't learn from, as plain data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BadExample(BaseModel):
    """What is wrong with one training example, and where it lies in the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    example: int
    """Its place among the training examples, from 0; copies and windows are counted."""
    split: str = "train"
    """The split that it is of."""
    row: int
    """Row of the split, the first is 1, a header not counted; in masked_lm a block of the text."""
    copy_of_row: int = 0
    """Which copy of the row it is, where text is augmented; 0 is the row itself."""
    term: str | None = None
    """The loss term that is not finite; none if the example raised."""
    found: str
    """`nan`, `inf` or `-inf`, or the error that was raised."""

    def __str__(self) -> str:
        copied = f", copy {self.copy_of_row}" if self.copy_of_row else ""
        wrong = f"{self.term} is {self.found}" if self.term else self.found
        return f"{self.split} row {self.row}{copied} ({wrong})"
