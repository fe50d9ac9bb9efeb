"""Models in `student.init` beside carved students: what applies to them, and what they draw."""

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.student import InitModel, StudentSettings, model_name
from lkd_tune.config.source import parse_source
from lkd_tune.config.starts import recipe_starts, start_from
from tests.support.draws import RandomSuggester, Told

HEAD = "task: {name: own, train: a.csv, dev: b.csv}\nteacher: t\n"
BOTH = HEAD + (
    "student: {depth: {int: [2, 4]}, layers: {choice: [matched, top]}, "
    "hidden_size: {choice: [32, 64]}, init: {choice: [teacher, m/small]}}\n"
)
SMALL, OTHER = InitModel(6), InitModel(6, own_tokenizer=True)
DRAW = {"teacher": "t", "teacher_layers": 8, "seed": 0}


def space_of(text, model=SMALL, layers=8):
    space = build_space(parse_source(text, "s.yaml"))
    space.check_init_models({"m/small": model}, layers)
    space.check_teacher(layers)
    return space


def problems_of(text, model=SMALL, layers=8):
    with pytest.raises(SpecError) as error:
        space_of(text, model, layers)
    return [str(problem) for problem in error.value.problems]


def test_the_shape_of_a_carved_student_does_not_apply_to_a_model():
    settings = StudentSettings(
        depth=2, layers="top", hidden_size=64, heads=2, init="m/small", vocab="trim"
    )
    assert settings.with_shape_of({"m/small": SMALL}) == StudentSettings(
        depth=6, init="m/small", vocab="trim"
    )
    assert settings.with_shape_of({"m/other": SMALL}) is settings
    assert [model_name(each) for each in ("a", "m/a", "s3://b/a/")] == ["a", "a", "a"]


def test_a_model_and_carved_students_are_drawn_in_one_search():
    space, seen = space_of(BOTH), {}
    for seed in range(30):
        suggester = RandomSuggester(seed)
        spec = space.draw(suggester, **DRAW)
        seen[spec.student.init] = spec
        carved = {"student.depth", "student.layers", "student.hidden_size"}
        drawn = carved & suggester.asked.keys()
        assert drawn == (carved if spec.student.init == "teacher" else set())
    small = seen["m/small"]
    assert small.student == StudentSettings(depth=6, init="m/small")
    assert small.layer_map.word == (0, 1, 3, 4, 5, 7, 8)  # its layers are compared
    assert seen["teacher"].student.depth <= 4


def test_the_map_is_drawn_for_a_model_where_layers_are_compared():
    searched = BOTH + "layer_map: monotone\nlosses: {choice: [soft_labels, ckd]}\n"
    space = space_of(searched)
    for seed in range(30):
        suggester = RandomSuggester(seed)
        spec = space.draw(suggester, **DRAW)
        has_map = any(name.startswith("layer_map") for name in suggester.asked)
        assert has_map == spec.has_layer_map
        assert spec.has_layer_map == (spec.student.init == "teacher" or spec.losses.recipe == "ckd")


def test_a_model_with_other_tokens_is_drawn_with_losses_on_whole_texts_alone():
    space = space_of(BOTH + "losses: {choice: [soft_labels, labels, ckd]}\n", OTHER)
    for losses in ("soft_labels", "labels"):
        told = {"student.init": "m/small", "losses": losses}
        assert space.draw(Told(told), **DRAW).student.init == "m/small"
    with pytest.raises(SpecError, match="m/small has another vocabulary than the teacher"):
        space.draw(Told({"student.init": "m/small", "losses": "ckd"}), **DRAW)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", "words are compared by wr_pair, wr_triple, ltr_pair, ltr_triple"),
        ("losses: {recipe: soft_labels, hidden: 1}\n", "words are compared by hidden"),
        ("losses: {recipe: soft_labels, wr_pair: {uniform: [0, 1]}}\n", "compared by wr_pair"),
        ("losses: {choice: [ckd, minilm]}\n", "words are compared by attention"),
    ],
)  # fmt: skip
def test_a_model_with_other_tokens_is_refused_where_words_are_compared(more, expected):
    (problem,) = problems_of(BOTH + more, OTHER)
    assert problem.startswith(
        "s.yaml:3 student.init: m/small has another vocabulary than the teacher, and "
    )
    assert expected in problem
    assert problem.endswith(
        "; use a model that has the teacher's tokenizer, or losses: soft_labels"
    )


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("kind: tagging", "the answers of tagging are those of words"),
        ("kind: question_answering", "the answers of question_answering are those of words"),
        ("kind: masked_lm", "the answers of masked_lm are those of words"),
        ("augment: {}", "task.augment replaces words of the teacher"),
    ],
)
def test_a_model_with_other_tokens_is_refused_on_tasks_of_words(task, expected):
    text = BOTH.replace("dev: b.csv", f"dev: b.csv, {task}") + "losses: soft_labels\n"
    space_of(text)
    (problem,) = problems_of(text, OTHER)
    assert expected in problem
    assert problem.endswith("or leave student.init out")


def test_a_model_with_more_layers_than_the_teacher_can_learn_from_its_logits():
    deep = InitModel(12)
    (problem,) = problems_of(BOTH, deep)
    assert "m/small has 12 layers, the teacher 8, so layers can't be compared" in problem
    space = space_of(BOTH + "losses: soft_labels\n", deep)
    spec = space.draw(Told({"student.init": "m/small"}), **DRAW)
    assert spec.student.depth == 12


def test_a_listed_map_has_to_fit_a_model_whose_layers_are_compared():
    text = BOTH.replace("{int: [2, 4]}", "2") + "layer_map: [0, 4, 8]\n"
    (problem,) = problems_of(text)
    assert "m/small does not fit the layer map: [0, 4, 8] has 3 entries" in problem
    space_of(text + "losses: {choice: [ckd, soft_labels]}\n")


@pytest.mark.parametrize("key", ["depth: 3", "layers: top", "hidden_size: 64", "heads: 2"])
def test_a_shape_that_applies_to_no_student_is_refused(key):
    text = HEAD + f"losses: soft_labels\nstudent: {{init: m/small, {key}}}\n"
    name = key.partition(":")[0]
    assert problems_of(text) == [
        f"s.yaml:4 student.{name}: does not apply to m/small, which has 6 layers and a width of "
        "its own; leave it out"
    ]


def test_a_searched_shape_is_not_drawn_where_it_applies_to_no_student():
    space = space_of(BOTH.replace("{choice: [teacher, m/small]}", "m/small"))
    assert space.draw(Told({}), **DRAW).student == StudentSettings(depth=6, init="m/small")
    assert space.size(8) == 1


def test_the_depth_of_a_model_may_be_written():
    space = space_of(HEAD + "losses: soft_labels\nstudent: {init: m/small, depth: 6}\n")
    assert space.draw(Told({}), **DRAW).student.depth == 6


def test_each_model_is_counted_once_where_the_map_does_not_matter():
    carved = 3 * 2 * 2  # depths, layers, widths
    assert space_of(BOTH + "losses: soft_labels\n").size(8) == carved + 1
    assert space_of(BOTH + "losses: {choice: [soft_labels, labels]}\n").size(8) == 2 * carved + 2
    # Maps of 6 of 8 layers, with both ends: 5 of the other 7.
    deep = BOTH.replace("int: [2, 4]", "int: [8, 8]") + "layer_map: monotone\n"
    assert space_of(deep).size(8) == 2 * 2 + 21
    alone = HEAD + "student: {init: m/small}\nlosses: {choice: [soft_labels, labels]}\n"
    assert space_of(alone).size(8) == 2


def test_models_take_turns_in_the_starts():
    space = space_of(BOTH + "losses: {choice: [labels, soft_labels, ckd]}\nsearch: {trials: 16}\n")
    found = {each.origin: each for each in recipe_starts(space, 8, ("labels", "soft_labels"))}
    assert [*found] == [
        "recipe labels", "recipe soft_labels from small", "recipe labels from small",
        "recipe soft_labels",
    ]  # fmt: skip
    for origin, start in found.items():
        spec = space.draw(Told(start.params), **DRAW, recipe=start.recipe)
        assert spec.student.init == ("m/small" if "small" in origin else "teacher")
        assert spec.student.depth == (6 if "small" in origin else 4)


def test_a_model_with_other_tokens_does_not_start_with_a_recipe_on_words():
    space = space_of(BOTH + "losses: {choice: [ckd, soft_labels]}\nsearch: {trials: 16}\n", OTHER)
    origins = [each.origin for each in recipe_starts(space, 8, ("ckd", "soft_labels"))]
    assert "recipe soft_labels from small" in origins
    assert not any(origin.startswith("recipe ckd") and "small" in origin for origin in origins)


def test_a_trial_of_a_model_is_a_start_of_another_search():
    space = space_of(
        BOTH + "losses: {choice: [ckd, soft_labels]}\ntrain: {lr: {uniform: [0.1, 1]}}\n"
    )
    told = {"student.init": "m/small", "losses": "soft_labels", "train.lr": 0.5}
    spec = space.draw(Told(told), **DRAW)
    start = start_from("before", spec, space, 8)
    assert start.params == told
    assert start.clamped == {}
    assert space.draw(Told(start.params), **DRAW) == spec
