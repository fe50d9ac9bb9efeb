"""Clusters that get nodes by themselves when trials wait for room."""

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

# So many trials wait for nodes at the beginning. What waits was drawn without the scores of those
# before it; the first few are drawn without a model anyway.
_AT_ONCE = 8


def can_grow(patience_s: float = 0.0) -> bool:
    """Returns whether an autoscaler adds nodes to the cluster.

    Ray has no public answer (ray#52033): what it calls the cluster's config is written by nobody
    in open-source Ray. Autoscaler v2 leaves a mark; only `ray up` and KubeRay turn it on. That of
    v1 runs on any head and reports types of nodes, which on a cluster that was put together by
    hand are its very nodes.

    Args:
        patience_s: How long to wait for that report; an autoscaler beside the head, as KubeRay's,
            comes after it.
    """
    deadline = time.monotonic() + patience_s
    while (grows := _has_autoscaler()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
    return bool(grows)


def _has_autoscaler() -> bool | None:
    """Returns whether there is one, None if that is not known yet."""
    if is_autoscaler_v2(fetch_from_server=True):
        return True
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    report = status.get("autoscaler_report")
    if not report:
        return None
    by_hand = {format_readonly_node_type(node["NodeID"]) for node in ray.nodes()}
    return bool(report["active_nodes"].keys() - by_hand)


class GrowingLimiter(ConcurrencyLimiter):
    """Lets some trials wait at once while few run, so that their nodes come together; later one.

    Tune itself lets one trial of a searcher wait, and a cluster would grow by a node at a time.

    Args:
        searcher: Draws the trials.
        running: Trials that run, kept up to date.
    """

    def __init__(self, searcher: Searcher, running: Sized):
        super().__init__(searcher, _AT_ONCE)  # Tune takes this for how many may wait
        self._running = running

    def suggest(self, trial_id: str) -> dict | None:
        """Returns the config of the next trial, None if enough wait."""
        self.max_concurrent = max(_AT_ONCE, len(self._running) + 1)
        return super().suggest(trial_id)
