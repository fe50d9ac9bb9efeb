"""A look at who runs what."""

from collections import defaultdict

import pytest

from lkd_tune.tuning.execution.callback import SearchCallback


@pytest.fixture
def processes(monkeypatch):
    """Process ids by the names of the trials they ran."""
    seen = defaultdict(set)
    original = SearchCallback.on_trial_result

    def spy(self, iteration, trials, trial, result, **info):
        seen[trial.config["name"]].add(result["pid"])
        original(self, iteration, trials, trial, result, **info)

    monkeypatch.setattr(SearchCallback, "on_trial_result", spy)
    return seen
