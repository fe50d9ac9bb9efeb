"""How often a trial is started again: the loss of a node, as of a spot one, is not its fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.tuning.execution.oom import cut_micro_batches, killed_by_ray

# Ray finds by its health checks that a node is gone, long after what ran there is missed.
_NEWS_S = 60.0


def living_nodes() -> set[str]:
    """Returns the ids of the cluster's nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@dataclass(frozen=True)
class _Loss:
    """A failure of a trial that counts, unless a node turns out to be why.

    Attributes:
        nodes: Those that the trial was on, none if that is not known.
        alive: Those that lived when it was started: one that was gone before is no excuse.
        news_until: When the loss of a node would be known.
    """

    nodes: set[str]
    alive: set[str]
    news_until: float

    def is_by_node(self, living: set[str]) -> bool:
        gone = self.alive - living
        return bool(gone & (self.nodes or gone))


class Retries:
    """Tells the losses that count against a trial from those of its nodes, or of their memory.

    Tune counts all alike, but for nodes that were drained before they went, and decides whether
    to start a trial again before it tells anyone. So it is to be given one failure more than is
    allowed, and a trial that comes there is ended by who asks this.

    A trial whose node may be lost is started again meanwhile; nothing waits for that news.

    Args:
        run: Where trials note their nodes.
        allowed: Failures of a trial of its own.
        living: Tells which nodes are alive.
        news_s: Seconds from the loss of a node until that is known.

    Attributes:
        for_tune: Failures that Tune is to allow.
    """

    def __init__(
        self,
        run: RunFolder,
        allowed: int,
        living: Callable[[], set[str]] = living_nodes,
        news_s: float = _NEWS_S,
    ):
        self._run, self._living, self._news_s = run, living, news_s
        self.for_tune = allowed + 1
        self._first = living()
        self._alive: dict[str, set[str]] = {}  # nodes when a trial was started last
        self._failures: dict[str, int] = {}
        self._doubtful: dict[str, list[_Loss]] = {}
        self._parts: dict[str, int] = {}  # of micro-batches, at its last failure

    def started(self, trial: Any) -> None:
        """Notes that a trial of Tune's was started."""
        self._alive[trial.config["name"]] = self._living()

    def are_used_up(self, trial: Any) -> bool:
        """Returns whether a trial has failed too often; asked after each of its failures.

        One whose worker was killed for want of memory goes on with smaller micro-batches, as long
        as there are such.
        """
        name, error = trial.config["name"], error_of(trial)
        folder, now = TrialFolder(self._run.trial(name)), time.monotonic()
        parts, losses = folder.read_accumulation(), self._doubtful.pop(name, [])
        if parts > self._parts.get(name, parts):
            trial.max_failures += 1  # the one before was of that kind, as its next worker saw
        if trial.num_failures > self._failures.get(name, 0):
            trial.max_failures += 1  # until it is known to count
            if not (killed_by_ray(error) and cut_micro_batches(folder, _spec_of(trial))):
                patience = self._news_s if "is unavailable" in error else 0.0
                alive = self._alive.get(name, self._first)
                losses.append(_Loss(folder.read_nodes(), alive, now + patience))
        self._failures[name], self._parts[name] = trial.num_failures, folder.read_accumulation()
        living = self._living()
        losses = [loss for loss in losses if not loss.is_by_node(living)]
        self._doubtful[name] = [loss for loss in losses if now < loss.news_until]
        trial.max_failures -= len(losses) - len(self._doubtful[name])
        return trial.num_failures >= trial.max_failures


def _spec_of(trial: Any) -> TrialSpec:
    return TrialSpec.model_validate_json(trial.config["spec"])


def error_of(trial: Any) -> str:
    """Returns what Tune noted of a trial's last failure."""
    path = trial.error_file
    text = Path(path).read_text("utf-8") if path and Path(path).exists() else ""
    return text.rpartition("Failure # ")[2]
