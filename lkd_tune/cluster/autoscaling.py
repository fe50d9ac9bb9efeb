"""Clusters whose autoscaler adds nodes when trials wait for resources."""

from __future__ import annotations

import json
import time
from collections.abc import Sized

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler._private.util import format_readonly_node_type
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.tune.search import ConcurrencyLimiter, Searcher

# Trials that may wait for nodes at the start. They are drawn before any of them has a score, but
# samplers draw the first few trials at random anyway.
_MAX_WAITING_AT_START = 8


def has_autoscaler(wait_s: float = 0.0) -> bool:
    """Returns whether an autoscaler adds nodes to the cluster.

    Ray has no public function for this (ray#52033): nothing in open-source Ray writes what it calls
    the cluster's config. Autoscaler v2 leaves a mark; only `ray up` and KubeRay turn it on.
    Autoscaler v1 runs on every head and reports the types of nodes, which are the nodes themselves
    on a cluster that was started by hand.

    Args:
        wait_s: How long to wait for the report of v1; an autoscaler in a process or container of
            its own, as KubeRay's, starts after the head.
    """
    deadline = time.monotonic() + wait_s
    while (found := _find_autoscaler()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
    return bool(found)


def _find_autoscaler() -> bool | None:
    """Returns whether there is one, None if that is not known yet."""
    if is_autoscaler_v2(fetch_from_server=True):
        return True
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    report = status.get("autoscaler_report")
    if not report:
        return None
    started_by_hand = {format_readonly_node_type(node["NodeID"]) for node in ray.nodes()}
    return bool(report["active_nodes"].keys() - started_by_hand)


class AutoscalingLimiter(ConcurrencyLimiter):
    """Lets several trials wait at the start, so that their nodes are added at once; later one.

    Tune itself lets one trial of a searcher wait, so that a cluster would grow node by node.

    Args:
        searcher: Draws the trials.
        running: The trials that run, kept up to date by the caller.
    """

    def __init__(self, searcher: Searcher, running: Sized):
        super().__init__(searcher, _MAX_WAITING_AT_START)  # Tune lets as many trials wait
        self._running = running

    def suggest(self, trial_id: str) -> dict | None:
        """Returns the config of the next trial, None if enough trials wait."""
        self.max_concurrent = max(_MAX_WAITING_AT_START, len(self._running) + 1)
        return super().suggest(trial_id)
