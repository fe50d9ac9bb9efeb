"""The points that a new search starts with: recipes, and the best trials of earlier runs."""

from __future__ import annotations

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.source import Source
from lkd_tune.config.starts import Start, recipe_starts, start_from
from lkd_tune.records.ranking import rank_run
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.fetch import read_run
from lkd_tune.tuning.session import Session

# The best trials of each earlier run that are tried again.
_BEST_OF_EACH = 3


def find_starts(session: Session, teacher_layers: int) -> list[Start]:
    """Returns the points that a new search starts with, and prints them.

    Raises:
        SpecError: If an entry of `search.warm_start` is not a run.
    """
    from lkd_tune.distillation.checks import recipe_problem  # loads torch

    space, settings, names = session.space, session.settings, []
    for name in settings.search.recipes:
        problem = recipe_problem(space, name)
        if problem is None:
            names.append(name)
        else:
            session.view.note(f"leaves out the recipe {name}: {problem}")
    recipes = recipe_starts(space, teacher_layers, names)
    if recipes:
        found = ", ".join(start.origin.removeprefix("recipe ") for start in recipes)
        session.view.note(f"starts with the recipes {found}")
    earlier = [
        start
        for folder in settings.search.warm_start
        for start in _best_of(read_run(folder), session, teacher_layers)
        if start.params
    ]
    for start in earlier:
        changed = ", ".join(_describe_change(start, name) for name in start.clamped)
        session.view.note(
            f"starts with {start.origin}" + (f"; not in this space: {changed}" if changed else "")
        )
    return [*recipes, *earlier]


def check_warm_start(settings: SpaceSettings, source: Source) -> None:
    """Checks that each entry of `search.warm_start` is a run with a complete trial.

    Raises:
        SpecError: With each entry that is not.
    """
    problems = []
    for folder in settings.search.warm_start:
        try:
            run = read_run(folder)
            run.read_manifest()
        except SpecError as error:
            problems += [
                source.problem(("search", "warm_start"), f"{p.where} {p.message}")
                for p in error.problems
            ]
            continue
        if not rank_run(run).names:
            message = f"{folder} has no complete trial"
            problems.append(source.problem(("search", "warm_start"), message))
    if problems:
        raise SpecError(problems)


def _best_of(run: RunFolder, session: Session, teacher_layers: int) -> list[Start]:
    # A comparison on the labels alone was not drawn from a space, so it may not fit into this one.
    others = run.read_comparisons()
    drawn = [name for name in rank_run(run).names if name not in others]
    return [
        start_from(f"{run.where} {name}", run.read_trial(name).spec, session.space, teacher_layers)
        for name in drawn[:_BEST_OF_EACH]
    ]


def _describe_change(start: Start, name: str) -> str:
    """Returns a value that the space does not have, and the value used instead."""
    if name not in start.params:
        return f"{name} {start.clamped[name]}"
    used = start.params[name]
    used = f"{used:.3g}" if isinstance(used, float) else used
    return f"{name} {start.clamped[name]} ({used} instead)"
