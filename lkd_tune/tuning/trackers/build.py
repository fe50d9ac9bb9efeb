"""The table of trackers, and functions that check and build the chosen ones."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib import import_module

from lkd_tune.config.errors import SpecError
from lkd_tune.config.space import SearchSpace
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.trackers.base import Tracker

# The class of each tracker, in the module of its name. Modules are imported when they are used,
# because the packages of most trackers are optional.
TRACKERS: Mapping[str, str] = {
    "tensorboard": "TensorBoard",
    "mlflow": "Mlflow",
    "wandb": "Wandb",
}


def check_trackers(space: SearchSpace) -> None:
    """Checks that this process can log to the trackers of a search space.

    Raises:
        SpecError: If a package is missing, or a tracker needs an answer from the user first.
    """
    problems = space.missing_trackers()
    if problems:
        raise SpecError(problems)
    for name in space.settings.trackers.chosen:
        if (problem := _class_of(name).problem()) is not None:
            raise SpecError(space.source.problem(("trackers", name), problem))


def build_trackers(run: RunFolder, space: SearchSpace) -> list[Tracker]:
    """Returns the trackers of a search space; the run must have a manifest."""
    chosen = space.settings.trackers.chosen
    search_id = _search_id(run) if chosen else ""
    return [_class_of(name)(settings, run.path, search_id) for name, settings in chosen.items()]


def _class_of(name: str) -> type[Tracker]:
    return getattr(import_module(f"lkd_tune.tuning.trackers.{name}"), TRACKERS[name])


def _search_id(run: RunFolder) -> str:
    """Returns the unique id that identifies a run in trackers."""
    if "id" not in run.read_manifest():
        update_manifest(run, id=uuid.uuid4().hex[:12])
    return run.read_manifest()["id"]
