"""What a trial reserves of the cluster."""

from __future__ import annotations

from functools import cache

from ray.tune import PlacementGroupFactory

from lkd_tune.config.settings.training import ResourceSettings


@cache  # one for all trials that need the same: Tune keeps each trial's to the search's end
def bundles(resources: ResourceSettings, strategy: str) -> PlacementGroupFactory:
    """Returns what to reserve for a gang: a bundle for each of its processes."""
    bundle = {"CPU": resources.cpus}
    if resources.gpus:
        bundle["GPU"] = resources.gpus
    return PlacementGroupFactory([bundle] * resources.workers, strategy=strategy)
