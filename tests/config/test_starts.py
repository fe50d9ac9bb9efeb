"""Known points as parameters of a space: the same trial comes out where the space has it."""

from __future__ import annotations

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.loss_scales import LossScales, TermScale, settings_of
from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.source import parse_source
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import Start, recipe_starts, start_from
from lkd_tune.config.trial import TrialSpec

HEAD = "task: {name: %s, train: train.csv, dev: dev.csv}\nteacher: somewhere\n"
WIDE = """
student: {depth: {int: [1, 6]}}
layer_map: monotone
losses:
  wr_pair: {loguniform: [0.01, 1000]}
  wr_triple: {choice: [0, {weight: {loguniform: [0.1, 1000]}, window: {choice: [5, 21]}}]}
  ltr_pair: {weight: {choice: [1, 100]}, discrepancy: {choice: [l2, kl]}}
  ltr_triple: {loguniform: [0.01, 1000]}
  logits: {temperature: {uniform: [1, 5]}, alpha: {choice: [0, 0.5]}}
train: {lr: {loguniform: [1.0e-5, 1.0e-3]}}
"""


class Fixed:
    """Draws given values, and refuses to draw others."""

    def __init__(self, params):
        self.params = params

    def suggest_float(self, name, low, high, *, step=None, log=False):
        assert low <= self.params[name] <= high
        return self.params[name]

    suggest_int = suggest_float

    def suggest_categorical(self, name, choices):
        assert self.params[name] in choices
        return self.params[name]


def space(text: str, task: str = "sst2") -> SearchSpace:
    return build_space(parse_source(HEAD % task + text, "space.yaml"))


def drawn(
    space: SearchSpace, params: dict, layers: int = 12, recipe: str | None = None
) -> TrialSpec:
    return space.draw(
        Fixed(params), teacher="somewhere", teacher_layers=layers, seed=0, recipe=recipe
    )


def starts(own: SearchSpace, layers: int = 6, names=("labels", "soft_labels", "ckd")):
    return recipe_starts(own, layers, names)


def ckd(own: SearchSpace, layers: int = 6) -> Start:
    return recipe_starts(own, layers, ["ckd"])[0]


def losses_of(own: SearchSpace, start: Start, layers: int = 6) -> LossSettings:
    return drawn(own, start.params, layers, start.recipe).losses


def test_a_recipe_in_a_wide_space_is_that_recipe():
    wide = space(WIDE)
    start = ckd(wide, 12)
    assert (start.origin, start.recipe, start.clamped) == ("recipe ckd", None, {})
    spec = drawn(wide, start.params)
    assert spec.losses == LossSettings(recipe="ckd")
    assert spec.train.lr == pytest.approx(1e-4)  # the middle of the range
    assert spec.student.depth == 6
    assert spec.layer_map.word == preset_map("skip", 12, 6) == spec.layer_map.layer


@pytest.mark.parametrize(
    "text",
    [
        "losses: {choice: [labels, soft_labels, {recipe: ckd, wr_pair: {loguniform: [0.1, 30]}}]}",
        "losses: {choice: [ckd, soft_labels, labels]}",
        "losses: {recipe: {choice: [labels, soft_labels, ckd]}}",
        "losses: {recipe: {choice: [ckd, soft_labels, labels]}, logits: {choice: [1, 2]}}",
    ],
)
def test_recipes_that_a_space_has_are_points_of_it(text):
    own = space(text)
    found = starts(own)
    assert [start.recipe for start in found] == [None] * 3
    for start, name in zip(found, ("labels", "soft_labels", "ckd"), strict=True):
        assert start.origin == f"recipe {name}"
        assert losses_of(own, start) == LossSettings(recipe=name)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (WIDE, ["labels", "soft_labels"]),
        ("student: {depth: 3}", ["labels", "soft_labels"]),
        ("losses: {wr_pair: 7}", ["labels", "soft_labels", "ckd"]),
        ("losses: {wr_pair: {loguniform: [2, 8]}}", ["labels", "soft_labels", "ckd"]),
        ("losses: {choice: [labels, {recipe: ckd, wr_pair: 3}]}", ["soft_labels", "ckd"]),
        # Soft labels at the temperature of the recipe, but of another kind.
        ("losses: {recipe: {choice: [labels, soft_labels]}, logits: {divergence: js}}",
         ["labels", "soft_labels", "ckd"]),
        # The labels alone are a single term, which is not balanced.
        ("losses: {balance: gradient, recipe: {choice: [labels, ckd]}}", ["soft_labels", "ckd"]),
        ("losses: {relations_until: 0.5, recipe: {choice: [labels, ckd]}}",
         ["soft_labels", "ckd"]),
    ],
)  # fmt: skip
def test_recipes_that_a_space_lacks_replace_its_losses(text, lacks):
    own = space(text)
    found = {start.origin.split()[1]: start for start in starts(own)[:3]}
    assert [name for name, start in found.items() if start.recipe] == lacks
    for name in lacks:
        assert not [key for key in found[name].params if key.startswith("losses")]
        assert losses_of(own, found[name]) == LossSettings(recipe=name)


def test_a_recipe_keeps_its_proportions_in_a_space_with_other_units():
    names = ("wr_pair", "wr_triple", "ltr_pair", "ltr_triple")
    ranges = ", ".join(f"{name}: {{loguniform: [0.01, 100]}}" for name in names)
    own = space(f"losses: {{balance: gradient, {ranges}}}")
    recipe = LossSettings(recipe="ckd")
    strengths = {"wr_pair": 2.0, "wr_triple": 0.1, "ltr_pair": 4.0, "ltr_triple": 0.5, "logits": 1}
    own.loss_scales = LossScales(
        terms={
            name: (TermScale(settings=settings_of(term), strength=strengths[name]),)
            for name, term in recipe.active()
        }
    )
    start = ckd(own)
    assert start.recipe is None
    spec = drawn(own, start.params, 6)
    effective = {name: t.weight * spec.loss_scales[name] for name, t in spec.losses.active()}
    unit = effective["logits"]
    assert {name: value / unit for name, value in effective.items()} == pytest.approx(
        {name: term.weight for name, term in recipe.active()}
    )


@pytest.mark.parametrize("map_setting", ["monotone", "free", "{choice: [last, skip, free]}"])
def test_the_uniform_map_in_every_kind_of_map(map_setting):
    own = space(f"student: {{depth: {{int: [2, 3]}}}}\nlayer_map: {map_setting}")
    start = ckd(own)
    assert drawn(own, start.params, 6).layer_map.word == (0, 2, 4, 6)
    assert start.clamped == {}


def maps(own: SearchSpace, names=("labels", "ckd")) -> dict[str, tuple[int, ...]]:
    return {
        each.origin: drawn(own, each.params, 6, each.recipe).layer_map.word
        for each in recipe_starts(own, 6, names)
    }


def test_recipes_take_turns_with_the_maps():
    own = space("student: {depth: {int: [2, 3]}}\nlayer_map: monotone\nsearch: {trials: 28}")
    skip, lower, top = (0, 2, 4, 6), (0, 2, 3, 6), (0, 1, 4, 6)
    assert maps(own) == {
        "recipe labels": skip,
        "recipe ckd (map lower_half)": lower,
        "recipe labels (map lower_half)": lower,
        "recipe ckd (map top_bottom)": top,
        "recipe labels (map top_bottom)": top,
        "recipe ckd": skip,
    }
    assert [*maps(own, ["labels", "soft_labels", "ckd", "tinybert"])] == [
        "recipe labels", "recipe soft_labels (map lower_half)", "recipe ckd (map top_bottom)",
        "recipe tinybert", "recipe labels (map lower_half)", "recipe soft_labels (map top_bottom)",
        "recipe ckd",
    ]  # fmt: skip
    assert maps(own, []) == {}
    # Where no map is searched there are none.
    assert len(maps(space("student: {depth: {int: [2, 3]}}\nlayer_map: skip"))) == 2


def test_students_are_large_where_the_score_alone_counts():
    own = "student: {depth: {int: [2, 4]}, hidden_size: {choice: [64, 192, 128]}}\n"
    spec = drawn(space(own), ckd(space(own)).params, 6)
    assert (spec.student.depth, spec.student.hidden_size) == (4, 192)
    for more in ("objectives: [score, parameters]", "limits: [parameters <= 1e6]"):
        costly = space(own + more)
        spec = drawn(costly, ckd(costly).params, 6)
        assert (spec.student.depth, spec.student.hidden_size) == (3, 128)
    whole = space(own.replace("[64, 192, 128]", "[64, null]"))
    assert drawn(whole, ckd(whole).params, 6).student.hidden_size is None
    # Heads must fit the width, so both are drawn together.
    own = own.replace("}}\n", "}, heads: {choice: [2, 4]}}\n")
    assert ckd(space(own)).params.keys() == {"student.depth"}


@pytest.mark.parametrize(("trials", "count"), [(1, 1), (3, 1), (4, 2), (8, 2), (16, 4), (100, 9)])
def test_a_quarter_of_the_trials_or_two_of_a_few_are_recipes(trials, count):
    own = space(f"layer_map: monotone\nstudent: {{depth: 3}}\nsearch: {{trials: {trials}}}")
    assert len(starts(own)) == count


def test_an_exhaustive_search_has_points_of_its_space_only():
    own = space("losses: {choice: [ckd, labels]}\nsearch: {sampler: grid, trials: 20}")
    assert [start.params for start in starts(own)] == [{"losses": "labels"}, {"losses": "ckd"}]


def test_numbers_of_the_training_are_the_middle_of_their_range():
    own = space(
        "train: {lr: {loguniform: [1.0e-3, 4.0e-3]}, warmup: {uniform: [0, 0.2]}, "
        "batch_size: {choice: [64, 8, 32]}, precision: {choice: [fp32, auto]}}"
    )
    assert ckd(own).params == {
        "train.lr": pytest.approx(2e-3), "train.warmup": pytest.approx(0.1), "train.batch_size": 32,
    }  # fmt: skip


def test_a_start_whose_settings_do_not_fit_each_other_is_left_out():
    own = space(
        "train: {batch_size: {int: [16, 160], step: 2}, micro_batch_size: 8}\n"
        "resources: {workers: 2}"
    )
    assert starts(own) == []  # of a batch of 88 each worker has 44, which 8 does not divide


def test_a_space_without_distributions_has_the_recipes():
    found = starts(space("student: {depth: 3}"))
    assert [(start.params, start.recipe) for start in found] == [
        ({}, "labels"), ({}, "soft_labels"), ({}, None),
    ]  # fmt: skip


def test_a_trial_of_another_search_comes_out_again():
    wide, params = space(WIDE), ckd(space(WIDE), 12).params
    params |= {"losses.wr_pair": 0.3, "student.depth": 4, "losses.wr_triple": "0"}
    params = {name: v for name, v in params.items() if not name.startswith("losses.wr_triple.")}
    spec = drawn(wide, params)
    again = start_from("runs/a 0003", spec, wide, 12)
    assert again.clamped == {}
    assert drawn(wide, again.params) == spec


def test_word_and_layer_relations_may_have_had_maps_of_their_own():
    maps = "{word: {choice: [skip, last]}, layer: {choice: [same, skip, last]}}"
    own = space(f"student: {{depth: 3}}\nlayer_map: {maps}")
    for word, layer in (("skip", "last"), ("last", "last"), ("last", "skip")):
        spec = drawn(own, {"layer_map.word": word, "layer_map.layer": layer})
        again = start_from("runs/a 0003", spec, own, 12)
        assert again.clamped == {}
        assert drawn(own, again.params).layer_map == spec.layer_map


def test_a_map_of_a_teacher_with_other_layers_is_left_to_the_sampler():
    wide = space(WIDE)
    spec = drawn(wide, ckd(wide, 12).params)
    start = start_from("runs/a 0003", spec, wide, 6)
    assert start.clamped == {"layer_map.word": list(spec.layer_map.word)}
    assert not [name for name in start.params if name.startswith("layer_map")]


def test_values_are_clamped_to_a_space():
    wide = space(WIDE)
    changed = {"losses.wr_pair": 100.0, "losses.wr_triple": "0", "train.lr": 5e-4}
    params = {**ckd(wide, 12).params, **changed}
    spec = drawn(wide, {k: v for k, v in params.items() if "wr_triple." not in k})
    narrow = space(
        "student: {depth: {int: [1, 5], step: 2}}\n"
        "losses: {wr_pair: {uniform: [0, 10], step: 3}, wr_triple: {choice: [1, 2]}}\n"
        "train: {lr: {loguniform: [1.0e-5, 1.0e-4]}}"
    )
    start = start_from("runs/a 0003", spec, narrow, 12)
    assert start.params == {
        "student.depth": 5, "losses.wr_pair": 9.0, "losses.wr_triple": 1, "train.lr": 1e-4,
    }  # fmt: skip
    assert start.clamped == {
        "student.depth": 6, "losses.wr_pair": 100, "losses.wr_triple": 0, "train.lr": 5e-4,
    }  # fmt: skip


def test_a_trial_of_a_recipe_comes_out_again():
    own = space("losses: {choice: [labels, {recipe: ckd, wr_pair: {loguniform: [0.1, 30]}}]}")
    for start in starts(own, names=["labels", "ckd"]):
        spec = drawn(own, start.params, 6)
        again = start_from("runs/a 0003", spec, own, 6)
        assert (again.params, again.clamped) == (start.params, {})
    soft = drawn(space("losses: soft_labels"), {}, 6)
    assert start_from("runs/a 0003", soft, own, 6).clamped == {"losses": "soft_labels"}


@pytest.mark.parametrize(
    ("layers", "options", "expected"),
    [
        ("matched", "[top, matched]", "matched"),
        ("top", "[matched, top]", "top"),
        ([1, 2, 6], "[matched, [1, 2, 6]]", (1, 2, 6)),
        ([4, 5, 6], "[matched, top]", "top"),  # the same layers by another name
        ("matched", "[bottom, [2, 4, 6]]", (2, 4, 6)),
        ("bottom", "[matched, top]", None),
    ],
)
def test_the_layers_that_a_student_starts_from(layers, options, expected):
    own = space(f"student: {{layers: {{choice: {options}}}}}\nlayer_map: skip")
    wanted = drawn(space("student: {depth: 3}"), {}, 6)
    wanted = TrialSpec.model_validate(
        wanted.model_dump() | {"student": {"depth": 3, "layers": layers}}
    )
    start = start_from("other", wanted, own, 6)
    if expected is None:
        assert (start.params, start.clamped) == ({}, {"student.layers": layers})
    else:
        assert start.clamped == {}
        assert drawn(own, start.params, 6).student.layers == expected


def test_recipes_of_a_task_without_labels_do_without_them():
    head = HEAD.replace("train: train.csv", "unlabelled: more.txt") % "own"
    losses = "losses: {choice: [ckd, {recipe: soft_labels, logits: {alpha: 0}}]}\n"
    own = build_space(parse_source(head + losses + "search: {trials: 16}", "space.yaml"))
    found = starts(own, names=("soft_labels", "pkd"))
    assert [start.recipe for start in found] == [None, "pkd"]  # the space has the first
    specs = [drawn(own, start.params, 6, start.recipe) for start in found]
    assert [spec.losses.recipe for spec in specs] == ["soft_labels", "pkd"]
    assert all(
        spec.losses.logits.alpha == 0 and spec.losses.logits.temperature > 1 for spec in specs
    )


@pytest.mark.parametrize(
    ("block", "place"),
    [
        ("losses: labels", "space.yaml:3 losses"),
        ("losses:\n  logits:\n    alpha: {choice: [0, 0.5]}", "space.yaml:3 losses"),
        ("losses: {logits: {alpha: 0}}\ntrain: {unlabelled_share: 0}", "space.yaml:4 train"),
    ],
)
def test_a_task_without_labels_refuses_what_needs_them(block, place):
    head = HEAD.replace("train: train.csv", "unlabelled: more.txt") % "own"
    with pytest.raises(SpecError) as error:
        build_space(parse_source(head + block, "space.yaml"))
    (problem,) = error.value.problems
    assert str(problem).startswith(f"{place}: ")
    assert "task.train" in problem.message
