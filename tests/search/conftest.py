"""A Ray of two cores for each file of tests, and a look at who runs what."""

import logging
from collections import defaultdict

import pytest
import ray

from lkd_tune.search.cluster import quieten_ray
from lkd_tune.search.follower import Follower


@pytest.fixture(scope="module")
def two_cores():
    quieten_ray()
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture
def processes(monkeypatch):
    """Process ids by the names of the trials they ran."""
    seen = defaultdict(set)
    original = Follower.on_trial_result

    def spy(self, iteration, trials, trial, result, **info):
        seen[trial.config["name"]].add(result["pid"])
        original(self, iteration, trials, trial, result, **info)

    monkeypatch.setattr(Follower, "on_trial_result", spy)
    return seen
