"""What all losses share: sums that are not divided yet, and checks of shapes.

B examples, L matched layers, N positions, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor

from lkd_tune.losses.relations import LayerRelations, WordRelations


@dataclass(frozen=True)
class LossSum:
    """A loss that is not divided yet.

    A training loop adds up sums and counts over micro-batches and ranks and divides once, so that
    neither number of them changes the objective.

    Attributes:
        total: Sum over all compared pairs, triples or examples, 0-dim.
        counting: Computes `count`. A training loop knows the count already, and on a GPU small
            operations take longer to start than to run.
    """

    total: Tensor
    counting: Callable[[], Tensor]

    @property
    def count(self) -> Tensor:
        """The divisor, 0-dim; no gradient."""
        return self.counting()

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.total + other.total, lambda: self.count + other.count)

    def mean(self) -> Tensor:
        """Returns total / count, 0 where nothing was compared."""
        return self.total / self.count.clamp(min=1).to(self.total.dtype)


def check_hidden(student: Tensor, teacher: Tensor, mask: Tensor) -> None:
    """Raises ValueError if hidden states (B, L, N, H) and mask (B, N) do not fit together."""
    if student.ndim != 4 or teacher.ndim != 4:
        shapes = _shapes(student, teacher)
        raise ValueError(f"hidden states need the shape (B, L, N, H), found {shapes}")
    if student.shape[:3] != teacher.shape[:3]:
        raise ValueError(f"B, L and N must agree, found {_shapes(student, teacher)}")
    check_mask(mask, student.shape[0], student.shape[2])


def check_relations(
    student: WordRelations | LayerRelations, teacher: WordRelations | LayerRelations
) -> None:
    """Raises ValueError if the relations of student and teacher differ in shape."""
    # Otherwise broadcasting would compare a teacher with one layer with all of the student's.
    for ours, theirs in ((student.sq_dist, teacher.sq_dist), (student.sq_norm, teacher.sq_norm)):
        if ours.shape != theirs.shape:
            raise ValueError(f"relations differ in shape: {_shapes(ours, theirs)}")


def check_mask(mask: Tensor, examples: int, length: int) -> None:
    """Raises ValueError if the mask is not of shape (B, N)."""
    if mask.shape != (examples, length):
        raise ValueError(f"the mask has shape {tuple(mask.shape)}, (B, N) is {(examples, length)}")


def check_name(kind: str, name: str, allowed: Collection[str]) -> None:
    """Raises ValueError if a name is not allowed; `kind` says of what it is one."""
    if name not in allowed:
        raise ValueError(f"unknown {kind} {name!r}; allowed: {', '.join(allowed)}")


def _shapes(student: Tensor, teacher: Tensor) -> str:
    return f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
