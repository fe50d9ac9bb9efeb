import itertools

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkd_tune.config.settings.layer_map import (
    PRESETS,
    count_maps,
    draw_free,
    draw_monotone,
    map_problem,
    preset_map,
    random_map,
)
from tests.support.draws import RandomSuggester, Told

PINS = [
    {"pin_embeddings": first, "pin_last": last} for first in (True, False) for last in (True, False)
]


def admissible(teacher_layers, depth, *, pin_embeddings, pin_last):
    """All strictly increasing maps with the pinned ends, by definition."""
    return {
        layer_map
        for layer_map in itertools.combinations(range(teacher_layers + 1), depth + 1)
        if (layer_map[0] == 0 or not pin_embeddings)
        and (layer_map[-1] == teacher_layers or not pin_last)
    }


@st.composite
def shapes(draw, most=12):
    teacher_layers = draw(st.integers(1, most))
    return teacher_layers, draw(st.integers(1, teacher_layers)), draw(st.sampled_from(PINS))


@pytest.mark.parametrize(
    ("name", "teacher_layers", "depth", "expected"),
    [
        ("skip", 12, 6, (0, 2, 4, 6, 8, 10, 12)),
        ("skip", 12, 4, (0, 3, 6, 9, 12)),
        ("skip", 12, 3, (0, 4, 8, 12)),
        ("skip", 12, 5, (0, 2, 5, 7, 10, 12)),  # the published rule gives (0, 12) here
        ("skip", 6, 6, (0, 1, 2, 3, 4, 5, 6)),
        ("skip", 6, 1, (0, 6)),
        ("last", 12, 4, (0, 9, 10, 11, 12)),
        ("first", 12, 4, (0, 1, 2, 3, 4)),
        ("top_bottom", 12, 6, (0, 1, 3, 5, 8, 10, 12)),  # DistilBERT's, counted from 1
        ("top_bottom", 12, 3, (0, 1, 8, 12)),
        ("lower_half", 12, 4, (0, 2, 4, 6, 12)),
        ("lower_half", 6, 3, (0, 2, 3, 6)),
        ("lower_half", 6, 5, (0, 1, 2, 3, 4, 6)),  # more than the lower half has
        ("lower_half", 6, 2, (0, 3, 6)),
        ("lower_half", 6, 1, (0, 6)),
    ],
)
def test_preset(name, teacher_layers, depth, expected):
    assert preset_map(name, teacher_layers, depth) == expected


@given(shape=shapes(24), name=st.sampled_from(PRESETS))
def test_presets_are_increasing_and_fit(shape, name):
    teacher_layers, depth, _ = shape
    layer_map = preset_map(name, teacher_layers, depth)
    assert layer_map[0] == 0
    assert all(a < b for a, b in itertools.pairwise(layer_map))
    assert map_problem(layer_map, teacher_layers, depth) is None
    if name != "first":
        assert layer_map[-1] == teacher_layers


@pytest.mark.parametrize("depth", [0, 7])
def test_depth_beyond_the_teacher_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth {depth} is not in 1–6, the teacher's layers"):
        preset_map("skip", 6, depth)


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="'skp' is not a preset; presets: skip, last"):
        preset_map("skp", 6, 3)


@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_every_monotone_draw_is_admissible(shape, seed):
    teacher_layers, depth, pins = shape
    drawn = draw_monotone(RandomSuggester(seed), "m", teacher_layers, depth, **pins)
    assert drawn in admissible(teacher_layers, depth, **pins)


@given(shape=shapes(6))
def test_every_admissible_monotone_map_can_be_drawn(shape):
    teacher_layers, depth, pins = shape
    for wanted in admissible(teacher_layers, depth, **pins):
        keys = {f"m.key.{layer}": float(layer in wanted) for layer in range(teacher_layers + 1)}
        assert draw_monotone(Told(keys), "m", teacher_layers, depth, **pins) == wanted


def test_monotone_maps_have_equal_probability():
    draws = 6000
    suggester = RandomSuggester(1)
    seen = dict.fromkeys(admissible(6, 3, pin_embeddings=True, pin_last=True), 0)
    for _ in range(draws):
        seen[draw_monotone(suggester, "m", 6, 3)] += 1
    expected = draws / len(seen)
    # 5 standard deviations of a binomial count.
    assert all(abs(number - expected) < 5 * expected**0.5 for number in seen.values())


def test_monotone_parameters_are_the_same_for_every_depth():
    asked = []
    for depth in (1, 3, 5):
        suggester = RandomSuggester()
        draw_monotone(suggester, "layer_map.word", 6, depth)
        asked.append(suggester.asked)
    assert asked[0] == asked[1] == asked[2]
    assert set(asked[0]) == {f"layer_map.word.key.{layer}" for layer in range(1, 6)}


def test_parameters_suit_a_study_that_varies_the_depth():
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, multivariate=True))
    for _ in range(15):
        trial = study.ask()
        depth = trial.suggest_int("depth", 1, 5)
        drawn = draw_monotone(trial, "m", 6, depth)
        study.tell(trial, sum(drawn))
        assert len(drawn) == depth + 1


@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_every_free_draw_fits(shape, seed):
    teacher_layers, depth, pins = shape
    drawn = draw_free(RandomSuggester(seed), "m", teacher_layers, depth, **pins)
    assert map_problem(drawn, teacher_layers, depth) is None
    assert drawn[0] == 0 or not pins["pin_embeddings"]
    assert drawn[-1] == teacher_layers or not pins["pin_last"]


@given(shape=shapes(), seed=st.integers(0, 99), step=st.integers(0, 10**6))
def test_random_map_depends_on_seed_and_step_alone(shape, seed, step):
    teacher_layers, depth, pins = shape
    drawn = random_map(seed, step, teacher_layers, depth, **pins)
    assert drawn == random_map(seed, step, teacher_layers, depth, **pins)
    assert drawn in admissible(teacher_layers, depth, **pins)


def test_random_maps_differ_from_step_to_step():
    assert len({random_map(0, step, 12, 4) for step in range(50)}) > 30


@given(shape=shapes(7))
def test_counts_by_enumeration(shape):
    teacher_layers, depth, pins = shape
    expected = len(admissible(teacher_layers, depth, **pins))
    assert count_maps("monotone", teacher_layers, depth, **pins) == expected
    assert count_maps("random", teacher_layers, depth, **pins) == expected
    assert count_maps("skip", teacher_layers, depth, **pins) == 1


@pytest.mark.parametrize("pins", PINS)
def test_count_of_free_maps_by_enumeration(pins):
    fitting = [
        layer_map
        for layer_map in itertools.product(range(4), repeat=3)
        if map_problem(layer_map, 3, 2) is None
        and (layer_map[0] == 0 or not pins["pin_embeddings"])
        and (layer_map[-1] == 3 or not pins["pin_last"])
    ]
    assert count_maps("free", 3, 2, **pins) == len(fitting)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([0, 2, 4, 6], None),
        ([6, 6, 1, 1], None),
        ([2, 4, 6], "[2, 4, 6] has 3 entries, a student of depth 3 needs 4: one for the embed"),
        ([0, 2, 4, 7], "names layer 7, the teacher has 6 layers (0 is the embeddings); use 0–6"),
        ([0, -1, 4, 6], "names layer -1"),
        ([0, 0, 4, 6], "matches an encoder layer of the student with the teacher's embeddings"),
    ],
)
def test_explicit_map(entries, expected):
    found = map_problem(entries, 6, 3)
    assert (found is None) if expected is None else (expected in found)
