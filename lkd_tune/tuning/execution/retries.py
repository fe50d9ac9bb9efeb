"""How often a trial is started again. The loss of a node, such as a spot one, does not count."""

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
from lkd_tune.tuning.execution.oom import halve_micro_batches, killed_by_ray

# Ray's health checks notice that a node is gone long after its actors fail.
_NODE_LOSS_KNOWN_S = 60.0


def living_nodes() -> set[str]:
    """Returns the ids of the cluster's nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@dataclass(frozen=True)
class _Failure:
    """A failure that counts against its trial, unless the loss of a node turns out to be the cause.

    Attributes:
        nodes: The nodes of the trial; empty if they are not known.
        alive: The nodes that were alive when it was started; one lost before is not the cause.
        pending_until: When the loss of a node would be known.
    """

    nodes: set[str]
    alive: set[str]
    pending_until: float

    def is_by_node(self, living: set[str]) -> bool:
        lost = self.alive - living
        return bool(lost & (self.nodes or lost))


class Retries:
    """Counts the failures of trials, except those caused by a lost node or its memory.

    Tune counts all failures alike, except on nodes that were drained first, and decides whether to
    start a trial again before it calls anyone. So Tune is given one failure more than allowed, and
    the caller ends a trial when `are_used_up` returns True.

    A trial whose node may be lost is started again at once; nothing waits until that is known.

    Args:
        run: The run, in whose folders trials record their nodes.
        allowed: The allowed failures of a trial.
        living: Returns the nodes that are alive.
        node_loss_known_s: Seconds from the loss of a node until that is known.

    Attributes:
        for_tune: The failures that Tune has to allow.
    """

    def __init__(
        self,
        run: RunFolder,
        allowed: int,
        living: Callable[[], set[str]] = living_nodes,
        node_loss_known_s: float = _NODE_LOSS_KNOWN_S,
    ):
        self._run, self._living, self._node_loss_known_s = run, living, node_loss_known_s
        self.for_tune = allowed + 1
        self._alive_at_first = living()
        self._alive: dict[str, set[str]] = {}  # nodes at the last start of each trial
        self._num_failures: dict[str, int] = {}
        self._pending: dict[str, list[_Failure]] = {}
        self._accumulation: dict[str, int] = {}  # of each trial, at its last failure

    def started(self, trial: Any) -> None:
        """Has to be called when Tune has started a trial."""
        self._alive[trial.config["name"]] = self._living()

    def are_used_up(self, trial: Any) -> bool:
        """Returns whether a trial has failed too often; has to be called after each failure.

        If its worker was killed because the node ran out of memory, the trial continues with
        smaller micro-batches, as long as they can shrink.
        """
        name, error = trial.config["name"], error_of(trial)
        folder, now = TrialFolder(self._run.trial(name)), time.monotonic()
        accumulation, failures = folder.read_accumulation(), self._pending.pop(name, [])
        if accumulation > self._accumulation.get(name, accumulation):
            # The failure before was an out-of-memory kill, as the next worker found out.
            trial.max_failures += 1
        if trial.num_failures > self._num_failures.get(name, 0):
            trial.max_failures += 1  # until it is known whether this failure counts
            if not (killed_by_ray(error) and halve_micro_batches(folder, _spec_of(trial))):
                wait_s = self._node_loss_known_s if "is unavailable" in error else 0.0
                alive = self._alive.get(name, self._alive_at_first)
                failures.append(_Failure(folder.read_nodes(), alive, now + wait_s))
        self._num_failures[name] = trial.num_failures
        self._accumulation[name] = folder.read_accumulation()
        living = self._living()
        failures = [failure for failure in failures if not failure.is_by_node(living)]
        self._pending[name] = [failure for failure in failures if now < failure.pending_until]
        trial.max_failures -= len(failures) - len(self._pending[name])
        return trial.num_failures >= trial.max_failures


def _spec_of(trial: Any) -> TrialSpec:
    return TrialSpec.model_validate_json(trial.config["spec"])


def error_of(trial: Any) -> str:
    """Returns the text that Tune wrote about a trial's last failure."""
    path = trial.error_file
    text = Path(path).read_text("utf-8") if path and Path(path).exists() else ""
    return text.rpartition("Failure # ")[2]
