"""How often a trial is started again: the loss of a node, as of a spot one, is not its fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from lkd_tune.search.trial_folder import TrialFolder
from lkd_tune.spec.run import RunFolder

# Ray finds by its health checks that a node is gone, long after what ran there is missed.
_NEWS_S = 60.0


def living_nodes() -> set[str]:
    """Returns the ids of the cluster's nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


class Retries:
    """Tells the losses that count against a trial from those of its nodes.

    Tune counts both alike, but for nodes that were drained before they went, and decides whether
    to start a trial again before it tells anyone. So it is to be given one failure more than is
    allowed, and a trial that comes there is ended by who asks this.

    Args:
        run: Where trials note their nodes.
        allowed: Failures of a trial of its own.
        living: Tells which nodes are alive.

    Attributes:
        for_tune: Failures that Tune is to allow.
    """

    def __init__(self, run: RunFolder, allowed: int, living: Callable[[], set[str]] = living_nodes):
        self._run, self._living = run, living
        self.for_tune = allowed + 1
        self._first = living()
        self._alive: dict[str, set[str]] = {}  # nodes when a trial was started last
        self._failures: dict[str, int] = {}

    def started(self, trial: Any) -> None:
        """Notes that a trial of Tune's was started."""
        self._alive[trial.config["name"]] = self._living()

    def are_used_up(self, trial: Any) -> bool:
        """Returns whether a trial has failed too often; asked after each of its failures."""
        name = trial.config["name"]
        counted = trial.num_failures > self._failures.get(name, 0)
        self._failures[name] = trial.num_failures
        if not counted:
            return False
        patience = _NEWS_S if "is unavailable" in error_of(trial) else 0.0
        if self._lost_a_node(name, patience):
            trial.max_failures += 1
            return False
        return trial.num_failures >= trial.max_failures

    def _lost_a_node(self, name: str, patience: float) -> bool:
        """Returns whether a node is gone that the trial was on, waiting so long for that news."""
        own = TrialFolder(self._run.trial(name)).read_nodes()
        deadline = time.monotonic() + patience
        while True:
            # Nodes that were gone before it was started are no excuse.
            gone = self._alive.get(name, self._first) - self._living()
            if gone & (own or gone):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.5)


def error_of(trial: Any) -> str:
    """Returns what Tune noted of a trial's last failure."""
    path = trial.error_file
    text = Path(path).read_text("utf-8") if path and Path(path).exists() else ""
    return text.rpartition("Failure # ")[2]
