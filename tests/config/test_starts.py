"""Known points as parameters of a space: the same trial comes out where the space has it."""

from __future__ import annotations

import pytest

from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.source import parse_source
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import Start, published_starts, start_from
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


def drawn(space: SearchSpace, params: dict, layers: int = 12) -> TrialSpec:
    return space.draw(Fixed(params), teacher="somewhere", teacher_layers=layers, seed=0)


def published(space: SearchSpace, layers: int) -> Start:
    return published_starts(space, layers)[0]


def test_the_published_recipe_in_a_wide_space_is_the_published_recipe():
    wide = space(WIDE)
    start = published(wide, 12)
    assert start.clamped == {}
    spec = drawn(wide, start.params)
    losses = spec.losses
    assert (losses.wr_pair.weight, losses.wr_triple.weight, losses.wr_triple.window) == (
        100,
        1000,
        21,
    )
    assert (losses.ltr_pair.weight, losses.ltr_triple.weight) == (100, 1000)
    assert losses.ltr_pair.discrepancy == "kl"
    assert (losses.logits.temperature, losses.logits.alpha) == (4, 0)
    assert spec.train.lr == 4e-5
    assert spec.student.depth == 6
    assert spec.layer_map.word == preset_map("skip", 12, 6) == spec.layer_map.layer


@pytest.mark.parametrize("map_setting", ["monotone", "free", "{choice: [last, skip, free]}"])
def test_the_uniform_map_in_every_kind_of_map(map_setting):
    own = space(f"student: {{depth: {{int: [2, 3]}}}}\nlayer_map: {map_setting}")
    start = published(own, 6)
    assert drawn(own, start.params, 6).layer_map.word == (0, 2, 4, 6)
    assert start.clamped == {}


def maps(own: SearchSpace, layers: int = 6) -> dict[str, tuple[int, ...]]:
    starts = published_starts(own, layers)
    return {each.origin: drawn(own, each.params, layers).layer_map.word for each in starts}


def test_the_published_weights_with_other_maps():
    own = space("student: {depth: {int: [2, 3]}}\nlayer_map: monotone")
    assert maps(own) == {
        "published": (0, 2, 4, 6),
        "published, map lower_half": (0, 2, 3, 6),
        "published, map top_bottom": (0, 1, 4, 6),
    }
    # Where no map is searched there are none.
    assert maps(space("student: {depth: {int: [2, 3]}}\nlayer_map: skip")) == {
        "published": (0, 2, 4, 6)
    }


def test_other_starts_have_all_layers_where_the_score_alone_counts():
    depths = "student: {depth: {int: [2, 4]}}\n"
    deeper = {
        "published": (0, 2, 4, 6),
        "published, map lower_half, 4 layers": (0, 1, 2, 3, 6),
        "published, map top_bottom, 4 layers": (0, 1, 2, 5, 6),
    }
    assert maps(space(depths + "layer_map: monotone")) == deeper
    assert maps(space(depths + "layer_map: skip")) == {
        "published": (0, 2, 4, 6),
        "published, 4 layers": (0, 2, 3, 5, 6),
    }
    for more in ("objectives: [score, parameters]", "limits: [parameters <= 1e6]"):
        own = space(f"{depths}layer_map: monotone\n{more}")
        assert [len(each) for each in maps(own).values()] == [4, 4, 4]


def test_values_outside_the_space_are_clamped_and_reported():
    narrow = space("losses: {wr_pair: {loguniform: [0.1, 10]}, wr_triple: {choice: [1, 2]}}")
    start = published(narrow, 6)
    assert start.params == {"losses.wr_pair": 10.0, "losses.wr_triple": 2}
    assert start.clamped == {"losses.wr_pair": 100, "losses.wr_triple": 1000}


def test_a_learning_rate_of_other_models_is_the_middle_of_the_range():
    own = space("train: {lr: {loguniform: [1.0e-3, 4.0e-3]}}")
    start = published(own, 6)
    assert start.params == {"train.lr": pytest.approx(2e-3)}
    assert start.clamped == {"train.lr": 4e-5}
    choice = space("train: {lr: {choice: [1.0e-3, 2.0e-3, 4.0e-3]}}")
    assert published(choice, 6).params == {"train.lr": 1e-3}


def test_a_space_without_distributions_has_nothing_to_begin_with():
    assert published(space("student: {depth: 3}"), 6).params == {}


def test_a_trial_of_another_search_comes_out_again():
    wide, params = space(WIDE), published(space(WIDE), 12).params
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
    spec = drawn(wide, published(wide, 12).params)
    start = start_from("runs/a 0003", spec, wide, 6)
    assert start.clamped == {"layer_map.word": list(spec.layer_map.word)}
    assert not [name for name in start.params if name.startswith("layer_map")]


def test_integers_and_steps_are_kept_to():
    own = space(
        "student: {depth: {int: [1, 5], step: 2}}\n"
        "losses: {wr_pair: {uniform: [0, 1], step: 0.3}}\ntrain: {batch_size: {int: [8, 64]}}"
    )
    start = published(own, 12)
    assert start.params["student.depth"] == 5
    assert start.params["losses.wr_pair"] == pytest.approx(0.9)
    assert start.params["train.batch_size"] == 32


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
