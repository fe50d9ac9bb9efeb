"""The width of a student: hidden size, attention heads, feed-forward layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.student import StudentSettings

_KEYS = ("hidden_size", "heads", "intermediate_size")


@dataclass(frozen=True)
class Width:
    """The width of an encoder.

    Attributes:
        hidden_size: Size of the hidden states.
        heads: Attention heads of a layer; each has hidden_size / heads channels.
        intermediate_size: Neurons of a feed-forward layer.
    """

    hidden_size: int
    heads: int
    intermediate_size: int

    @property
    def head_size(self) -> int:
        """Number of channels of a head."""
        return self.hidden_size // self.heads


def asks_for_width(student: StudentSettings) -> bool:
    """Returns whether any part of a student's width is set."""
    return any(getattr(student, key) is not None for key in _KEYS)


def resolve_width(student: StudentSettings, teacher: Width) -> Width:
    """Returns the width of a student; parts that are not set follow from the teacher's width.

    Raises:
        SpecError: If the heads do not divide the hidden size, or a student that is pruned from the
            teacher exceeds its width.
    """
    pruned = student.init == "teacher"
    hidden = student.hidden_size or teacher.hidden_size
    if pruned and hidden > teacher.hidden_size:
        raise _problem(
            "hidden_size",
            f"{hidden} is above the teacher's {teacher.hidden_size}; use at most that, or "
            "student.init: random",
        )
    heads = student.heads
    if heads is None:
        heads = hidden // teacher.head_size
        if hidden % teacher.head_size:
            heads = teacher.heads
    if hidden % heads:
        key = "hidden_size" if student.heads is None else "heads"
        value = hidden if student.heads is None else heads
        raise _problem(
            key,
            f"{value}: {heads} heads do not divide hidden size {hidden}; use multiples of "
            f"{teacher.head_size} for hidden_size and leave heads out, or set both",
        )
    if pruned and heads > teacher.heads:
        raise _problem("heads", f"{heads} heads are more than the teacher's {teacher.heads}")
    if pruned and hidden // heads > teacher.head_size:
        raise _problem(
            "heads",
            f"{heads} heads of hidden size {hidden} have {hidden // heads} channels each, the "
            f"teacher's have {teacher.head_size}; use at least "
            f"{-(-hidden // teacher.head_size)} heads or a smaller hidden_size",
        )
    neurons = student.intermediate_size
    if neurons is None:
        neurons = max(1, round(teacher.intermediate_size * hidden / teacher.hidden_size))
    if pruned and neurons > teacher.intermediate_size:
        raise _problem(
            "intermediate_size",
            f"{neurons} is above the teacher's {teacher.intermediate_size}; use at most that",
        )
    return Width(hidden, heads, neurons)


def with_width(student: StudentSettings, teacher: Width | None) -> StudentSettings:
    """Returns the settings with all parts of the width set, if any of them is set.

    Settings with the same width become equal this way. A student that starts from another model
    keeps that model's width.

    Raises:
        SpecError: As `resolve_width`.
    """
    if teacher is None or not asks_for_width(student) or student.starts_from_model:
        return student
    return student.model_copy(update=vars(resolve_width(student, teacher)))


def width_problems(students: Iterable[StudentSettings], teacher: Width) -> list[Problem]:
    """Returns the values that are invalid in every combination: at most one problem for each key.

    A value that is invalid only in some combinations is not a problem: such combinations are drawn
    again.
    """
    failed: dict[tuple[str, int | None], Problem] = {}
    valid: set[tuple[str, int | None]] = set()
    for student in students:
        try:
            with_width(student, teacher)
            valid |= {(key, getattr(student, key)) for key in _KEYS}
        except SpecError as error:
            problem = error.problems[0]
            key = problem.key.split(".")[1]
            failed.setdefault((key, getattr(student, key)), problem)
    invalid: dict[str, Problem] = {}
    for (key, value), problem in failed.items():
        if (key, value) not in valid:
            invalid.setdefault(key, problem)
    return list(invalid.values())


def _problem(key: str, message: str) -> SpecError:
    return SpecError(Problem("", f"student.{key}", message))
