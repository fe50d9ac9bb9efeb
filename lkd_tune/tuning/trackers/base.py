"""The interface of trackers, and a trial as they receive it.

A trial's values are plain numbers by step; names are those of the leaderboard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lkd_tune.config.distributions import Choice, Distribution
from lkd_tune.config.source import SHORTHAND
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.trial_record import BASELINE, LABELS_ALONE, State, TrialRecord
from lkd_tune.results.columns import tracked_results
from lkd_tune.results.formatting import layer_map

_SECTIONS = ("student", "layer_map", "losses", "train", "seed")


@dataclass(frozen=True)
class TrackedTrial:
    """The current state of a trial, or of another training that is compared with trials.

    Attributes:
        key: A unique key: the name, with a hash of what is trained if another trial may get the
            same name.
        name: `0007`, `0007-seed1`, ….
        role: Its purpose: search, baseline (a winner's student on the labels alone), confirm or
            ablation.
        params: All its settings, by dotted name: numbers, strings or None.
        searched: Names of the settings that differ between the trials of the search.
        points: Values by step, and within a step by name: `score`, `dev/accuracy`,
            `loss/wr_pair`, `lr`, `train_s`.
        state: `running`, or how it ended.
        results: Values that are known only at the end: score, sizes, seconds.
        error: Why it was refused or failed; None if it was not.
    """

    key: str
    name: str
    role: str
    params: dict[str, Any]
    searched: frozenset[str]
    points: dict[int, dict[str, float]]
    state: State
    results: dict[str, float]
    error: str | None

    @property
    def last_step(self) -> int:
        """The last step with values; 0 before the first."""
        return max(self.points, default=0)


class Tracker(Protocol):
    """Logs trials to one experiment tracker.

    All methods are called in one thread per tracker, and may raise any exception. Each update
    has all values of a trial; the tracker skips those that it has already, also from earlier
    sessions.
    """

    name: str

    def __init__(self, settings: Any, run: Path, search_id: str):
        """Takes the tracker's settings, the run folder, and the id of the search."""

    @staticmethod
    def problem() -> str | None:
        """Returns why this process can't log to the tracker, and what to do; None if it can.

        Called before the search starts. It must not wait for a server.
        """

    def open(self) -> str:
        """Connects, and returns one line that says where the user finds the trials."""

    def update(self, trial: TrackedTrial) -> None:
        """Logs the new values of a trial; a trial that has ended is complete afterwards."""

    def close(self) -> None:
        """Releases the trials that have not ended; a later session continues them."""


def tracked(
    record: TrialRecord, space: SearchSpace, seen: Iterable[Measurement] = ()
) -> TrackedTrial:
    """Returns a trial as trackers receive it.

    Args:
        record: The content of the trial's folder.
        space: The search space.
        seen: Measurements that may be missing from the folder, because the trial runs on a node
            that does not see it.
    """
    by_step = {m.step: m for m in (*record.measurements, *seen)}
    points = {step: _point(by_step[step], record.spec) for step in sorted(by_step)}
    drawn = record.is_drawn
    return TrackedTrial(
        key=record.name if drawn else f"{record.name}-{record.spec.digest()[:8]}",
        name=record.name,
        role=_role(record),
        params=(params := _params(record.spec)),
        searched=frozenset(name for name in params if _is_searched(name, space)),
        points=points,
        state=record.state,
        results=tracked_results(record) if record.outcome else {},
        error=record.outcome.error if record.outcome else None,
    )


def _point(m: Measurement, spec: TrialSpec) -> dict[str, float]:
    values: dict[str, float | None] = {
        # If the trial is scored on another task, this is not its score.
        "score": m.score if spec.evaluate_on is None else None,
        **{f"dev/{name}": value for name, value in m.metrics.items()},
        **{f"loss/{name}": value for name, value in m.losses.items()},
        "lr": m.lr,
        "train_s": m.train_s,
        "samples_per_s": m.samples_per_s,
        "padding": m.padding,
        "skipped": m.skipped,
        "peak_memory_gib": m.peak_memory_gib,
        "peak_host_gib": m.peak_host_gib,
        "energy_j": m.energy_j,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def _params(spec: TrialSpec) -> dict[str, Any]:
    settings = spec.model_dump(mode="json", include={*_SECTIONS})
    return {
        "task": spec.task.name,
        "teacher": spec.teacher,
        **_flat({name: settings[name] for name in _SECTIONS}),
        "workers": spec.resources.workers,
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:  # a list is a layer map, written as in the leaderboard: 0-2-4-6
            flat[prefix + key] = layer_map(value) if isinstance(value, list) else value
    return flat


def _is_searched(name: str, space: SearchSpace) -> bool:
    maps = space.settings.layer_map
    if name in ("layer_map.word", "layer_map.layer"):
        own = getattr(maps, name.partition(".")[2])
        if "free" in (maps.word, own) or "monotone" in (maps.word, own):
            return True
    return any(_varies(name, key, dist) for key, dist in space.distributions().items())


def _varies(name: str, key: str, dist: Distribution) -> bool:
    """Whether a setting has a distribution, by its own name or that of a block it is in."""
    if name in (key, f"{key}.{SHORTHAND.get(key, 'weight')}"):
        return True
    options = dist.options if isinstance(dist, Choice) else ()
    blocks = any(isinstance(option, dict) for option in options)
    return blocks and name.startswith(f"{key}.")


def _role(record: TrialRecord) -> str:
    if record.is_drawn:
        return "search"
    if record.origin == LABELS_ALONE or record.name == BASELINE:
        return "baseline"
    return "ablation" if "-without-" in record.name else "confirm"
