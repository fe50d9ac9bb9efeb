"""What other seeds tell of a configuration, some of which may have failed."""

from __future__ import annotations

from lkd_tune.records.ranking import _trusted_means
from lkd_tune.records.seed_stats import summarise_seeds
from lkd_tune.records.trial_record import BASELINE

STEADY = {2: 0.85, 3: 0.86, 4: 0.87}


def test_what_fails_with_some_seeds_is_no_winner():
    told = summarise_seeds(
        {"lucky": {2: 0.9}, "steady": STEADY}, {}, {"lucky": [3, 4], "steady": []}
    )
    assert [entry.trial for entry in told] == ["steady", "lucky"]
    assert told[1].failed == [3, 4]
    entries = [entry.model_dump() for entry in told]
    assert [*_trusted_means(entries)] == ["steady"]


def test_if_seeds_of_all_failed_the_best_mean_is_what_there_is():
    scores = {"a": {2: 0.8, 3: 0.81}, "b": {2: 0.9}, BASELINE: STEADY}
    told = summarise_seeds(scores, {}, {"a": [4], "b": [3, 4]})
    means = _trusted_means(entry.model_dump() for entry in told)
    assert max(means, key=lambda name: means[name]) == "b"


def test_which_trials_are_indistinguishable_from_the_best():
    told = summarise_seeds(
        {"a": STEADY, "b": {2: 0.84, 3: 0.86, 4: 0.88}, "c": {2: 0.5, 3: 0.51}}, {}, {}
    )
    assert {entry.trial: entry.ties_with_best for entry in told} == {
        "a": True,
        "b": True,
        "c": False,
    }
