"""Reads a space: from a file or another source to a checked `SearchSpace`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lkd_tune.config.distributions import (
    Distribution,
    looks_like_distribution,
    parse_distribution,
)
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.retired import find_retired, without_retired
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.source import KeyPath, Source, dotted, read_source
from lkd_tune.config.space import SEARCHABLE, SearchSpace, distributions_in, picking
from lkd_tune.config.uri import is_uri, uri_problem

_WRONG = object()  # Replaces a distribution that could not be parsed.


def load_space(path: Path, overrides: Sequence[str] = ()) -> SearchSpace:
    """Returns the checked space in a YAML file, with `key.path=value` overrides applied.

    Raises:
        SpecError: With all problems of the file: unknown keys, invalid values, invalid
            distributions, distributions where they are not allowed.
    """
    return build_space(read_source(path, overrides))


def build_space(source: Source) -> SearchSpace:
    """Returns the checked space that a source describes.

    Raises:
        SpecError: As `load_space`.
    """
    wrong = _uri_problems(source.tree, (), source) | _retired(source)
    tree = _parsed(source.tree, (), source, wrong)
    distributions = list(distributions_in(tree))
    # Each end and option is tried once, with the first value of all other distributions.
    space = SearchSpace(source, tree, settings=None)  # type: ignore[arg-type]
    found: dict[str, Problem] = {}
    tried: list[SpaceSettings] = []
    for path, dist in [((), None), *distributions]:
        for value in dist.probes if dist else (None,):
            try:
                tried.append(space.resolve(picking({dotted(path): value})))
            except SpecError as error:
                found.update((str(problem), problem) for problem in error.problems)
        if found and not path:
            break  # These problems do not depend on any distribution and would be repeated.
    # Invalid distributions were left out, so their settings seem to be missing.
    others = [
        problem
        for problem in found.values()
        if not any(problem.key == dotted(path) for path in wrong)
    ]
    problems = [*wrong.values(), *others] or _ambiguous(distributions, source)
    if problems := problems or _ends_nothing(tried, source):
        raise SpecError(problems)
    space.settings = tried[-1]
    if problems := _balances_one_term(space):
        raise SpecError(problems)
    return space


def _balances_one_term(space: SearchSpace) -> list[Problem]:
    """Returns a problem if terms are to be balanced, but all trials have the same single one."""
    terms = [*space.balanced_terms()]
    if len(terms) != 1:
        return []
    message = (
        f"gradient balances terms with each other, but {terms[0]} is the only term that a trial of "
        "this space can have; use none, or give another term a weight"
    )
    return [space.source.problem(("losses", "balance"), message)]


def load_recorded_space(path: Path) -> SearchSpace:
    """Returns the space in a run folder, to read the run; also one of an earlier version.

    Raises:
        SpecError: As `load_space`.
    """
    source = read_source(path)
    source.tree = without_retired(source.tree)
    return build_space(source)


def _retired(source: Source) -> dict[KeyPath, Problem]:
    """Returns a problem for each value that its setting no longer takes."""
    return {
        path: Problem(
            source.place(path), dotted(key), f"{retired.value} was removed: {retired.advice}"
        )
        for path, key, retired in find_retired(source.tree)
    }


def _uri_problems(tree: Any, path: KeyPath, source: Source) -> dict[KeyPath, Problem]:
    """Returns the problems of URIs of object stores, such as a secret in one."""
    if isinstance(tree, str) and is_uri(tree) and (problem := uri_problem(tree)):
        return {path: source.problem(path, problem)}
    wrong: dict[KeyPath, Problem] = {}
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            wrong |= _uri_problems(value, (*path, key), source)
    return wrong


def _ambiguous(
    distributions: Iterable[tuple[KeyPath, Distribution]], source: Source
) -> list[Problem]:
    """Returns a problem for each setting that has different distributions in options of a choice.

    A study has one distribution for each name, so a sampler would confuse them.
    """
    first: dict[str, Distribution] = {}
    problems = {}
    for path, dist in distributions:
        name = dotted(path)
        if first.setdefault(name, dist) != dist:
            message = (
                f"two options of a choice give it different distributions ({first[name]}; {dist}); "
                "use the same distribution in all options, or move it out of the choice"
            )
            problems[name] = source.problem(path, message)
    return [*problems.values()]


def _ends_nothing(tried: Iterable[SpaceSettings], source: Source) -> list[Problem]:
    """Returns a problem if `losses.relations_until` has no effect in any trial of a space.

    A space that searches the weights may draw trials without relations. They ignore the setting.

    Args:
        tried: The settings with each option of the space.
        source: The space as written.
    """
    losses = [settings.losses for settings in tried]
    if all(each.relations_until == 1 for each in losses):
        return []
    path = ("losses", "relations_until")
    terms = {name for each in losses for name, _ in each.active()}
    if terms == {"logits"}:
        return [source.problem(path, "there is no relation to end; leave it out")]
    if "logits" not in terms:
        message = "nothing is left to train on, as losses.logits has weight 0; set it above 0"
        return [source.problem(path, message)]
    return []


def _parsed(tree: Any, path: KeyPath, source: Source, wrong: dict[KeyPath, Problem]) -> Any:
    """Returns the tree with distributions parsed; invalid ones are added to `wrong` and left
    out."""
    if looks_like_distribution(tree):
        if path and path[0] not in SEARCHABLE:
            message = f"can't be searched; distributions are allowed in {', '.join(SEARCHABLE)}"
            wrong[path] = source.problem(path, message)
            return _WRONG
        try:
            return parse_distribution(
                {
                    key: _parsed_option(key, value, path, source, wrong)
                    for key, value in tree.items()
                }
            )
        except ValueError as error:
            wrong[path] = source.problem(path, str(error))
            return _WRONG
    if isinstance(tree, Mapping):
        parsed = {
            str(key): _parsed(value, (*path, str(key)), source, wrong)
            for key, value in tree.items()
        }
        return {key: value for key, value in parsed.items() if value is not _WRONG}
    return tree


def _parsed_option(
    key: str, value: Any, path: KeyPath, source: Source, wrong: dict[KeyPath, Problem]
) -> Any:
    if key != "choice" or not isinstance(value, list):
        return value
    options = (_parsed(option, (*path, key, i), source, wrong) for i, option in enumerate(value))
    return [option for option in options if option is not _WRONG]
