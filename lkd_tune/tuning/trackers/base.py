"""What a tracker is told of a trial: plain numbers by step, and names as in the leaderboard."""

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
from lkd_tune.records.trial_record import BASELINE, State, TrialRecord
from lkd_tune.results.columns import tracked_results
from lkd_tune.results.formatting import layer_map

_SECTIONS = ("student", "layer_map", "losses", "train", "seed")


@dataclass(frozen=True)
class TrackedTrial:
    """A trial, or a baseline and its like, as it is at the moment.

    Attributes:
        key: Its name, and a hash of what is trained where another trial may get that name.
        name: `0007`, `baseline`, `0007-seed1`, ….
        role: Why it is there: search, baseline, confirm or ablation.
        params: All settings it was trained with, by dotted name: numbers, texts, None.
        searched: Names of the settings that differ between the trials of the search.
        points: Values by step, the only clock; by name as `score`, `dev/accuracy`,
            `loss/wr_pair`, `lr`, `train_s`.
        state: `running` or how it ended.
        results: What is known at the end only: the score, sizes, seconds.
        error: Why it was refused or failed.
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
        """The last step there is a point of, 0 before the first."""
        return max(self.points, default=0)


class Tracker(Protocol):
    """Where trials are logged. All is called in one thread of its own, and may raise anything.

    What is logged already, in this session or an earlier one, is the tracker's business: it is
    told the whole of a trial each time.
    """

    name: str

    def __init__(self, settings: Any, run: Path, search_id: str):
        """Takes its settings, the run folder, and the id of the search."""

    @staticmethod
    def problem() -> str | None:
        """Returns why this process can't log to it, and what to do; None if it can.

        Called before the search starts. It must not wait for a server.
        """

    def open(self) -> str:
        """Connects, and returns in a line what the user looks at."""

    def update(self, trial: TrackedTrial) -> None:
        """Logs what is new of a trial; one that has ended is complete afterwards."""

    def close(self) -> None:
        """Lets go of the trials that have not ended; a later session goes on with them."""


def tracked(
    record: TrialRecord, space: SearchSpace, seen: Iterable[Measurement] = ()
) -> TrackedTrial:
    """Returns a trial as trackers are told it.

    Args:
        record: As its folder has it.
        space: The search's.
        seen: Measurements that may not have come to its folder yet, as the trial is on a node that
            does not see that.
    """
    by_step = {m.step: m for m in (*record.measurements, *seen)}
    points = {step: _point(by_step[step], record.spec) for step in sorted(by_step)}
    drawn = record.is_drawn
    return TrackedTrial(
        key=record.name if drawn else f"{record.name}-{record.spec.digest()[:8]}",
        name=record.name,
        role=_role(record.name),
        params=(params := _params(record.spec)),
        searched=frozenset(name for name in params if _is_searched(name, space)),
        points=points,
        state=record.state,
        results=tracked_results(record) if record.outcome else {},
        error=record.outcome.error if record.outcome else None,
    )


def _point(m: Measurement, spec: TrialSpec) -> dict[str, float]:
    values: dict[str, float | None] = {
        # Where another task scores the trial, this is not its score.
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


def _role(name: str) -> str:
    if name.isdigit():
        return "search"
    if "-without-" in name:
        return "ablation"
    return "baseline" if name == BASELINE else "confirm"
