"""Recipes as the base of a block of losses: what other keys change, and old specs."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space, load_space
from lkd_tune.config.schema import space_schema
from lkd_tune.config.settings.losses import LABELS_ONLY, TERM_NAMES, LossSettings
from lkd_tune.config.settings.recipes import DEFAULT_RECIPE, RECIPES, RecipeName
from lkd_tune.config.shipped import shipped_spaces
from lkd_tune.config.source import apply_override, parse_source
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec
from tests.config.test_starts import Fixed

HEAD = "task: {name: tiny, train: train.csv, dev: dev.csv}\nteacher: somewhere\n"
NAMES = [*RECIPES]


def space(text: str) -> SearchSpace:
    return build_space(parse_source(HEAD + text, "space.yaml"))


def weights(losses: LossSettings) -> dict[str, float]:
    return {name: term.weight for name, term in losses.active()}


def test_the_names_are_those_of_the_table():
    assert get_args(RecipeName) == tuple(RECIPES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_complete_and_its_dump_is_the_same(name):
    losses = LossSettings(recipe=name)
    assert {*weights(losses)} == {*RECIPES[name].losses} & {*TERM_NAMES}
    assert LossSettings.model_validate(losses.model_dump()) == losses
    assert LossSettings.model_validate_json(losses.model_dump_json()) == losses


def test_without_a_recipe_the_losses_are_those_of_the_default():
    assert LossSettings() == LossSettings(recipe=DEFAULT_RECIPE)
    assert weights(LossSettings()) == {
        "wr_pair": 1, "wr_triple": 10, "ltr_pair": 1, "ltr_triple": 10, "logits": 1,
    }  # fmt: skip
    assert LossSettings().wr_triple.window == 21


def test_labels_need_no_teacher():
    assert LABELS_ONLY.recipe == "labels"
    assert not LABELS_ONLY.needs_teacher


def test_other_keys_change_a_recipe():
    losses = LossSettings.model_validate(
        {"recipe": "soft_labels", "logits": 3, "wr_pair": {"discrepancy": "l1"}}
    )
    assert weights(losses) == {"logits": 3, "wr_pair": 1}  # a term that is named has its weight
    assert (losses.logits.alpha, losses.logits.temperature) == (0.5, 2)
    hotter = LossSettings.model_validate({"recipe": "soft_labels", "logits": {"temperature": 5}})
    assert (hotter.logits.alpha, hotter.logits.temperature) == (0.5, 5)
    assert weights(LossSettings.model_validate({"wr_triple": 0})).keys() == {
        "wr_pair", "ltr_pair", "ltr_triple", "logits",
    }  # fmt: skip


def test_a_name_alone_is_a_recipe():
    own = space("losses: labels")
    assert own.settings.losses == LABELS_ONLY
    apply_override(own.source, "losses.logits.weight=2")
    assert weights(build_space(own.source).settings.losses) == {"logits": 2}


@pytest.mark.parametrize(
    ("text", "draws"),
    [
        (
            "losses: {choice: [labels, {recipe: ckd, wr_pair: {loguniform: [0.1, 30]}}]}",
            {
                "labels": {"losses": '"labels"'},
                "ckd": {
                    "losses": '{"recipe": "ckd", "wr_pair": "numbers 0.1 to 30, log scale"}',
                    "losses.wr_pair": 5.0,
                },
            },
        ),
        (
            "losses: {choice: [labels, soft_labels]}",
            {"labels": {"losses": "labels"}, "soft_labels": {"losses": "soft_labels"}},
        ),
        (
            "losses: {recipe: {choice: [labels, ckd]}}",
            {"labels": {"losses.recipe": "labels"}, "ckd": {"losses.recipe": "ckd"}},
        ),
    ],
)
def test_recipes_are_searched(text, draws):
    own = space(text + "\nstudent: {depth: 3}")
    for recipe, params in draws.items():
        spec = own.draw(Fixed(params), teacher="somewhere", teacher_layers=6, seed=0)
        assert spec.losses.recipe == recipe
        if "losses.wr_pair" in params:
            assert spec.losses.wr_pair.weight == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("losses: lables", r"space.yaml:3 losses.recipe: found 'lables' \(did you mean labels\?\)"),
        ("losses:\n  recipe: x", f"space.yaml:4 losses.recipe: found 'x'; allowed: {NAMES[0]}, "),
        ("losses: {choice: [labels, soft]}", "losses.recipe: found 'soft'"),
        ("losses: {recipe: {choice: [labels, 3]}}", "losses.recipe: found 3; allowed"),
        ("losses: [labels]", r"losses.recipe: found \['labels'\]"),
        ("losses: {recipe: labels, logits: 0}", "weights are 0"),
        ("losses: {recipe: labels, wr_pai: 1}", "unknown setting"),
    ],
)
def test_wrong_recipes(text, message):
    with pytest.raises(SpecError, match=message) as caught:
        space(text)
    assert len(caught.value.problems) == 1


def test_the_schema_has_the_names():
    forms = space_schema()["properties"]["losses"]["anyOf"]
    assert {"type": "string", "enum": NAMES}.items() <= next(
        form for form in forms if "enum" in form
    ).items()
    choice = next(form for form in forms if form.get("title") == "choice")
    assert any("enum" in each for each in choice["properties"]["choice"]["items"]["anyOf"])


def old_spec(**losses) -> TrialSpec:
    """Returns a spec of a version without recipes, which wrote its terms as they are here."""
    own = space("student: {depth: 3}")
    spec = own.draw(Fixed({}), teacher="somewhere", teacher_layers=6, seed=0)
    tree = json.loads(spec.to_json())
    del tree["losses"]["recipe"]
    for name, changes in losses.items():
        tree["losses"][name].update(changes)
    return TrialSpec.from_record(json.dumps(tree))


def test_an_old_spec_means_what_it_meant():
    spec = old_spec(wr_pair={"weight": 0}, wr_triple={"weight": 3, "window": 5})
    assert spec.losses.recipe == "ckd"
    assert weights(spec.losses) == {"wr_triple": 3, "ltr_pair": 1, "ltr_triple": 10, "logits": 1}
    assert spec.losses.wr_triple.window == 5


def test_an_old_baseline_is_the_recipe_labels():
    relations = ("wr_pair", "wr_triple", "ltr_pair", "ltr_triple")
    spec = old_spec(**{name: {"weight": 0} for name in relations}, logits={"alpha": 1})
    assert spec.losses == LABELS_ONLY


def test_the_name_of_a_recipe_does_not_change_what_is_trained():
    own = space("student: {depth: 3}\nlosses: labels")
    spec = own.draw(Fixed({}), teacher="somewhere", teacher_layers=6, seed=0)
    renamed = spec.model_copy(update={"losses": spec.losses.model_copy(update={"recipe": "ckd"})})
    assert renamed.digest() == spec.digest()


def test_the_shipped_space_has_all_recipes():
    own = load_space(shipped_spaces()["recipes.yaml"])
    settings = own.settings
    assert sorted(own.distributions()["losses"].options) == sorted(NAMES)
    assert settings.search.trials == settings.confirm.top == len(NAMES) == own.size(6)
