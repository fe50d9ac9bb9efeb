"""What may change when a run is resumed: settings that leave its trials comparable.

The number of workers may change, because batches, their order and the objective do not depend on
it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from lkd_tune.config.distributions import Distribution
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.config.retired import find_retired
from lkd_tune.config.settings.training import check_batch
from lkd_tune.config.source import dotted, read_source
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.manifest import folder_of_paths
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.local_files import with_absolute_paths

CHANGEABLE = (
    "search.trials",
    "search.time_budget",
    "search.concurrency",
    "search.max_failures",
    "search.min_free_gb",
    "search.baseline",
    "confirm",
    "trackers",
    "resources.workers",
    "teacher.placement",
    "teacher.allow_chance_level",
)


def refuse_retired(run: RunFolder) -> None:
    """Refuses to continue a run with settings that were removed, because nothing can train it.

    Raises:
        SpecError: With each of these settings.
    """
    found = {key: retired for _, key, retired in find_retired(read_source(run.space).tree)}
    if found:
        raise SpecError(
            Problem(
                run.where,
                dotted(key),
                f"{retired.value} was removed, so this run can't be continued; start a new search "
                "(best, report and export still read this run)",
            )
            for key, retired in found.items()
        )


def check_overrides(overrides: Sequence[str]) -> None:
    """Checks that overrides change only what may change.

    Raises:
        SpecError: With the first override that does not.
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not _may_change(key):
            message = f"can't change in a resumed run; these can: {', '.join(CHANGEABLE)}"
            raise SpecError(Problem(f"--set {override}", "", message))


def apply_changes(run: RunFolder, space: SearchSpace, *, allowed: bool) -> SearchSpace:
    """Returns a run's space with the changes of another space file.

    Args:
        run: The run.
        space: The space file as it is now.
        allowed: Whether changes are applied at all.

    Raises:
        SpecError: With each key that differs and must not, and both values.
    """
    with contextlib.chdir(folder_of_paths(run)):
        before = _leaves(with_absolute_paths(load_space(run.space)))
    after = _leaves(with_absolute_paths(space))
    different, keys = {}, {**before, **after}
    for key in keys:
        pair = _at(before, key), _at(after, key)
        if pair[0] != pair[1] and not _is_inside(key, keys):
            different[key] = pair
    refused = [key for key in different if not (allowed and _may_change(key))]
    if refused:
        raise SpecError(
            space.source.problem(key.split("."), _compare(*different[key], key, allowed))
            for key in refused
        )
    overrides = [f"{key}={_text(value)}" for key, (_, value) in different.items()]
    return load_space(run.space, overrides)


def check_workers(run: RunFolder, space: SearchSpace) -> str | None:
    """Returns a message about a changed number of workers, None if it is unchanged.

    Args:
        run: The run, with its space before the change.
        space: The space after the change.

    Raises:
        SpecError: With the trials, among those that may continue or be trained again, whose batches
            can't be split over this number of workers.
    """
    resources = space.settings.resources
    before = load_space(run.space).settings.resources.workers
    if before == resources.workers:
        return None
    problems, unfinished = [], 0
    for record in run.read_trials():
        if record.state not in ("running", "complete"):
            continue
        unfinished += record.state == "running"
        try:
            check_batch(record.spec.train, resources)
            _check_budget(record.spec, resources.workers)
        except ValueError as error:
            message = f"trial {record.name} can't run with {resources.workers} workers: {error}"
            problems.append(space.source.problem(("resources", "workers"), message))
    if problems:
        raise SpecError(problems)
    return (
        f"{_count(resources.workers, 'worker')} per trial from now on, {before} before; "
        f"this applies to {_count(unfinished, 'unfinished trial')}, too"
    )


def _check_budget(spec: TrialSpec, workers: int) -> None:
    from lkd_tune.data.batches import padded

    needed, budget = 2 * workers * padded(spec.task.max_length), spec.train.tokens_per_batch
    if budget is not None and budget < needed:
        raise ValueError(
            f"train.tokens_per_batch {budget} would give other batches; at least {needed} "
            f"is needed: two examples of task.max_length {spec.task.max_length} per worker"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _compare(before: Any, after: Any, key: str, allowed: bool) -> str:
    values = f"is {_text(after)} here, {_text(before)} in the run"
    if _may_change(key) and not allowed:
        return f"{values}; --allow-changed applies it"
    return f"{values}, and can't change in a resumed run; start a new run"


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE)


def _leaves(space: SearchSpace) -> dict[str, Any]:
    """Returns the settings of a space by name, independent of how the file is written.

    A distribution replaces everything that is drawn from it. A block in `CHANGEABLE` is one leaf.
    """
    leaves = _flat(space.settings.model_dump(mode="json"))
    for drawn, dist in space.distributions().items():
        leaves = {name: leaves[name] for name in leaves if not name.startswith(f"{drawn}.")}
        leaves[drawn] = dist
    return leaves


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree or prefix in CHANGEABLE:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _at(leaves: dict[str, Any], key: str) -> Any:
    """Returns a leaf, or the block of leaves below this key."""
    inside = {
        name.removeprefix(f"{key}."): value
        for name, value in leaves.items()
        if name.startswith(f"{key}.")
    }
    return inside or leaves.get(key)


def _is_inside(key: str, leaves: Iterable[str]) -> bool:
    """Returns whether a key is part of a leaf of the other space."""
    return any(key.startswith(f"{name}.") for name in leaves)


def _text(value: Any) -> str:
    if isinstance(value, Distribution):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.12g}"
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("...\n").strip()
