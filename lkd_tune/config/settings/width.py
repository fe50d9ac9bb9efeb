"""The width of a student: hidden size, attention heads, feed-forward layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.student import StudentSettings

_KEYS = ("hidden_size", "heads", "intermediate_size")


@dataclass(frozen=True)
class Width:
    """The width of a model. Two are equal if these three sizes are:

    Attributes:
        hidden_size: Size of the hidden states.
        heads: Attention heads of a layer.
        intermediate_size: Neurons of a feed-forward layer.
        own_head_size: Channels of a head where the configuration sets them. Otherwise each head
            has hidden_size / heads channels.
        group: Heads that share keys and values.
        keeps_heads: Whether heads can't be made smaller, as with rotary positions, whose
            frequencies follow from a head's size.
        embedding_size: Size of the embeddings where they are projected to the hidden states.
    """

    hidden_size: int
    heads: int
    intermediate_size: int
    own_head_size: int | None = field(default=None, compare=False)
    group: int = field(default=1, compare=False)
    keeps_heads: bool = field(default=False, compare=False)
    embedding_size: int | None = field(default=None, compare=False)

    @property
    def head_size(self) -> int:
        """Number of channels of a head."""
        return self.own_head_size or self.hidden_size // self.heads

    @property
    def attention_size(self) -> int:
        """Number of channels of all heads' queries."""
        return self.heads * self.head_size

    def resized(self, hidden_size: int, heads: int, intermediate_size: int) -> Width:
        """Returns another width of the same kind."""
        return replace(
            self, hidden_size=hidden_size, heads=heads, intermediate_size=intermediate_size
        )

    def sizes(self) -> dict[str, int]:
        """Returns the three sizes by the keys of `student`."""
        return {key: getattr(self, key) for key in _KEYS}


def asks_for_width(student: StudentSettings) -> bool:
    """Returns whether any part of a student's width is set."""
    return any(getattr(student, key) is not None for key in _KEYS)


def resolve_width(student: StudentSettings, teacher: Width) -> Width:
    """Returns the width of a student; parts that are not set follow from the teacher's width.

    Raises:
        SpecError: If the heads do not fit the hidden size or the teacher's groups of heads, or a
            student that is pruned from the teacher exceeds its width.
    """
    pruned = student.init == "teacher"
    hidden = student.hidden_size or teacher.hidden_size
    if pruned and hidden > teacher.hidden_size:
        raise _problem(
            "hidden_size",
            f"{hidden} is above the teacher's {teacher.hidden_size}; use at most that, or "
            "student.init: random",
        )
    if pruned and hidden == teacher.embedding_size:
        raise _problem(
            "hidden_size",
            f"{hidden} is the size of the teacher's embeddings, which are projected to its hidden "
            "states; use another size",
        )
    heads = student.heads or _heads(hidden, teacher)
    width = teacher.resized(hidden, heads, teacher.intermediate_size)
    _check_heads(student, width, teacher)
    if pruned and heads > teacher.heads:
        message = f"{heads} heads are more than the teacher's {teacher.heads}"
        raise _problem("heads", message)
    neurons = student.intermediate_size
    if neurons is None:
        neurons = max(1, round(teacher.intermediate_size * hidden / teacher.hidden_size))
    if pruned and neurons > teacher.intermediate_size:
        raise _problem(
            "intermediate_size",
            f"{neurons} is above the teacher's {teacher.intermediate_size}; use at most that",
        )
    return width.resized(hidden, heads, neurons)


def _heads(hidden: int, teacher: Width) -> int:
    """Returns the default number of heads: of the teacher's size, or else as many."""
    if teacher.own_head_size:
        groups = teacher.heads // teacher.group
        return max(1, round(groups * hidden / teacher.hidden_size)) * teacher.group
    fits = hidden % teacher.head_size == 0
    return hidden // teacher.head_size if fits else teacher.heads


def _check_heads(student: StudentSettings, width: Width, teacher: Width) -> None:
    hidden, heads, full = width.hidden_size, width.heads, teacher.head_size
    key, value = ("hidden_size", hidden) if student.heads is None else ("heads", heads)
    advice = f"use multiples of {full * width.group} for hidden_size and leave heads out"
    if width.keeps_heads and not width.own_head_size and hidden != heads * full:
        message = f"{value}: {heads} heads of hidden size {hidden} do not have {full} channels each"
        raise _problem(key, f"{message}, as rotary positions of the teacher need; {advice}")
    if heads % width.group:
        message = f"{value}: the teacher's heads share keys and values in groups of {width.group}"
        advice = f"use multiples of {width.group} for heads" if width.own_head_size else advice
        raise _problem(key, f"{message}, which do not divide {heads} heads; {advice}")
    if width.own_head_size:
        return
    if hidden % heads:
        message = f"{value}: {heads} heads do not divide hidden size {hidden}"
        raise _problem(key, f"{message}; {advice}, or set both")
    if student.init == "teacher" and width.head_size > full and heads <= teacher.heads:
        raise _problem(
            "heads",
            f"{heads} heads of hidden size {hidden} have {width.head_size} channels each, the "
            f"teacher's have {full}; use at least {-(-hidden // full)} heads or a smaller "
            "hidden_size",
        )


def with_width(student: StudentSettings, teacher: Width | None) -> StudentSettings:
    """Returns the settings with all parts of the width set, if any of them is set.

    Settings with the same width become equal this way. A student that starts from another model
    keeps that model's width.

    Raises:
        SpecError: As `resolve_width`.
    """
    if teacher is None or not asks_for_width(student) or student.starts_from_model:
        return student
    return student.model_copy(update=resolve_width(student, teacher).sizes())


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
