"""Every place that names the objectives has those of the table."""

from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from lkd_tune.config.objectives import COSTS, OBJECTIVES, SCORE, ObjectiveName
from lkd_tune.config.settings.search import LimitSettings
from lkd_tune.records.measurement import ModelSize
from lkd_tune.results.leaderboard import Row

HOW_TO = Path(__file__).parents[2] / "docs/how-to/objectives-and-limits.md"


def test_settings_know_all_of_them():
    assert get_args(ObjectiveName) == tuple(OBJECTIVES)
    assert [*LimitSettings.model_fields] == [*COSTS]


def test_each_cost_is_measured():
    explaining = {"device", "embedding_parameters", "latency_spread"}
    assert {*ModelSize.model_fields} - explaining == {*COSTS}


def test_timed_costs_may_be_unknown_and_others_not():
    required = {name for name, field in ModelSize.model_fields.items() if field.is_required()}
    assert required == {name for name, cost in COSTS.items() if cost.measured != "timing"}


def test_the_leaderboard_has_all_of_them():
    assert {*OBJECTIVES} <= {field.name for field in fields(Row)}


def test_only_the_score_is_maximised():
    assert [name for name, objective in OBJECTIVES.items() if objective.maximize] == [SCORE]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_documentation_describes_it(name):
    assert f"`{name}`" in HOW_TO.read_text("utf-8")
