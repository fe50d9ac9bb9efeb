"""A Ray of a test's own, or of all the files that can share one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lkd_tune.cluster.ray import quieten_ray


def shared_ray() -> None:
    """Starts a Ray of two CPUs, if it does not run: it stays until `own_ray`, or the end."""
    quieten_ray()
    import ray

    if not ray.is_initialized():
        _start(2)


@contextmanager
def own_ray(cpus: int, **options: Any) -> Iterator[None]:
    """Starts Ray on this machine with so many CPUs, and ends it."""
    quieten_ray()
    import ray

    ray.shutdown()
    _start(cpus, **options)
    try:
        yield
    finally:
        ray.shutdown()


def _start(cpus: int, **options: Any) -> None:
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
