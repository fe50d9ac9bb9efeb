"""What can be checked before anything starts: the space against its teacher and its data."""

from __future__ import annotations

from lkd_tune.distill.tasks.data import check_data
from lkd_tune.distill.teacher import teacher_depth, teacher_positions
from lkd_tune.distill.width import teacher_width
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.space import SearchSpace


def check_space(space: SearchSpace) -> int:
    """Returns the teacher's depth after checking it and the data against the space.

    Raises:
        SpecError: With everything that does not fit together.
    """
    problems = [
        space.source.problem(("task", *key.split(".")), message)
        for key, message in check_data(space.settings.task)
    ]
    layers = 0
    try:
        layers = teacher_depth(space.settings.teacher)
        width = teacher_width(space.settings.teacher)
        problems += _check_length(space)
        for check in (
            lambda: space.check_teacher(layers),
            lambda: space.check_width(width),
        ):
            try:
                check()
            except SpecError as error:
                problems += error.problems
    except SpecError as error:
        problems += [
            # What reads a model does not know where in the file it was named.
            problem
            if problem.where
            else space.source.problem(problem.key.split("."), problem.message)
            for problem in error.problems
        ]
    if problems:
        raise SpecError(problems)
    return layers


def _check_length(space: SearchSpace) -> list[Problem]:
    """Returns that inputs are longer than the teacher's, if so: it would fail at the first one."""
    settings = space.settings
    positions, length = teacher_positions(settings.teacher, settings.task), settings.task.max_length
    if positions is None or length <= positions:
        return []
    message = f"{length} is above the {positions} positions of the teacher; use at most {positions}"
    return [space.source.problem(("task", "max_length"), message)]
