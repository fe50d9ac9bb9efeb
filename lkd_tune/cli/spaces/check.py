"""The command `check`: a space file, its teacher and its data, before anything starts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lkd_tune.cli.options import (
    DataOption,
    SetOption,
    SpaceOption,
    TaskOption,
    load_requested_spaces,
)

if TYPE_CHECKING:
    from lkd_tune.config.space import SearchSpace


def check(
    space: SpaceOption,
    overrides: SetOption = None,
    task: TaskOption = None,
    data: DataOption = None,
) -> None:
    """Check a space file, its teacher and its data without starting anything.

    Prints what is searched and how large the space is. Of local data it prints the rows, the
    classes, empty and repeated texts, texts that are in train as well, and the share that
    task.max_length cuts, and notes what to correct.

    Examples:

        lkd-tune check --space layer_map.yaml --set student.depth=4

        lkd-tune check --space glue.yaml --task cola --data glue_data
    """
    spaces = load_requested_spaces(space, overrides, None, None, None, task, data)
    from lkd_tune.config.errors import Problem, SpecError

    problems = []
    for name, loaded in spaces.items():
        if name:
            print(f"== {name}")
        try:
            _check_one(loaded)
        except SpecError as error:
            found = error.problems
            problems += [Problem(name, "", str(each)) for each in found] if name else found
    if problems:
        raise SpecError(problems)


def _check_one(space: SearchSpace) -> None:
    from lkd_tune.cli.printing.data_table import show_data
    from lkd_tune.cli.printing.tables import show_space
    from lkd_tune.distillation.checks import check_all, try_teacher

    layers, found = check_all(space)
    warnings = try_teacher(space)
    show_data(found.splits)
    show_space(space, layers)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    for warning in warnings:
        print(warning, file=sys.stderr)
