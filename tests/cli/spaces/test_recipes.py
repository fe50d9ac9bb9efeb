"""The command `recipes`: what it lists, and blocks that can be pasted."""

import pytest
import yaml

from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.recipes import RECIPES


def test_all_recipes_are_listed_with_their_source(called):
    code, out, _ = called("recipes")
    assert code == 0
    words = " ".join(out.split())
    for name, recipe in RECIPES.items():
        assert f"{name} compares {recipe.compares} source: {recipe.source}" in words
        assert recipe.differs in words


@pytest.mark.parametrize("name", RECIPES)
def test_the_printed_block_is_the_recipe(called, name):
    code, out, _ = called("recipes", name)
    assert code == 0
    block = yaml.safe_load(out)
    assert [*block] == ["losses"]
    assert LossSettings.model_validate(block["losses"]) == LossSettings(recipe=name)


def test_an_unknown_recipe(called):
    code, out, err = called("recipes", "lables")
    assert (code, out) == (2, "")
    assert err.startswith("lkd-tune: NAME: found 'lables' (did you mean labels?); allowed: labels")
    assert err.count("\n") == 1
