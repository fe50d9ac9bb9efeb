"""A Ray of a test's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lkd_tune.search.cluster import quieten_ray


@contextmanager
def own_ray(cpus: int, **options: Any) -> Iterator[None]:
    """Starts Ray on this machine with so many CPUs, and ends it."""
    quieten_ray()
    import ray

    ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
        **options,
    )
    try:
        yield
    finally:
        ray.shutdown()
