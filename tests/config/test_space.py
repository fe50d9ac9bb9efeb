import itertools
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space, load_space
from lkd_tune.config.settings.width import Width
from lkd_tune.config.shipped import shipped_spaces, shipped_teacher
from lkd_tune.config.source import apply_override, parse_source
from lkd_tune.models.teacher_size import teacher_depth, teacher_width
from tests.support.draws import RandomSuggester

SPACE = """task: acceptability
teacher: t
student:
  depth: {int: [2, 4]}
layer_map: monotone
losses:
  wr_pair: {loguniform: [0.1, 100]}
  wr_triple: {choice: [0, {weight: {loguniform: [1, 1e3]}}]}
  logits: {temperature: {uniform: [1, 4]}}
train:
  lr: {choice: [1e-4, 5e-4]}
"""


def space_of(text, *overrides):
    source = parse_source(text, "s.yaml")
    for override in overrides:
        apply_override(source, override)
    return build_space(source)


def space_for(teacher_layers, *given):
    space = space_of(*given)
    if teacher_layers is not None:
        space.check_teacher(teacher_layers)
    return space


def problems_of(*given, teacher_layers=None):
    with pytest.raises(SpecError) as error:
        space_for(teacher_layers, *given)
    return [str(problem) for problem in error.value.problems]


@given(seed=st.integers(0, 10**6))
def test_every_draw_is_a_trial_that_fits(seed):
    space = space_of(SPACE)
    spec = space.draw(RandomSuggester(seed), teacher="t", teacher_layers=6, seed=seed)
    assert spec.student.depth in (2, 3, 4)
    assert len(spec.layer_map.word) == spec.student.depth + 1
    assert spec.layer_map.word == spec.layer_map.layer
    assert 0.1 <= spec.losses.wr_pair.weight <= 100
    assert spec.losses.wr_triple.weight == 0 or 1 <= spec.losses.wr_triple.weight <= 1000
    assert spec.train.lr in (1e-4, 5e-4)
    assert (spec.teacher, spec.seed) == ("t", seed)


def test_parameters_are_named_by_their_place_in_the_file():
    asked = {}
    for seed in range(20):
        suggester = RandomSuggester(seed)
        space_of(SPACE).draw(suggester, teacher="t", teacher_layers=6, seed=0)
        for name, values in suggester.asked.items():
            assert asked.setdefault(name, values) == values  # as a study demands
    assert set(asked) == {
        "student.depth",
        "losses.wr_pair",
        "losses.wr_triple",
        "losses.wr_triple.weight",
        "losses.logits.temperature",
        "train.lr",
        *(f"layer_map.word.key.{layer}" for layer in range(1, 6)),
    }


def test_maps_of_the_two_relations_are_drawn_apart_if_both_are_searched():
    space = space_of(SPACE, "layer_map={word: monotone, layer: monotone}")
    maps = set()
    for seed in range(20):
        spec = space.draw(RandomSuggester(seed), teacher="t", teacher_layers=6, seed=0)
        maps.add(spec.layer_map.word == spec.layer_map.layer)
    assert maps == {True, False}


@pytest.mark.parametrize(
    ("layer_map", "expected"),
    [
        ("skip", (0, 2, 4, 6)),
        ("[0, 1, 2, 6]", (0, 1, 2, 6)),
        ("random", "random"),
        ("{word: last, layer: skip}", (0, 4, 5, 6)),
    ],
)
def test_fixed_layer_maps(layer_map, expected):
    space = space_of(f"task: acceptability\nteacher: t\nlayer_map: {layer_map}\n")
    spec = space.draw(RandomSuggester(), teacher="t", teacher_layers=6, seed=0)
    assert spec.layer_map.word == expected


def test_size():
    space = space_of(SPACE)
    assert space.depths() == [2, 3, 4]
    assert space.layer_map_counts(6) == {2: 5, 3: 10, 4: 10}
    assert math.isinf(space.size(6))
    discrete = space_of(
        SPACE, "losses={}", "train.lr={choice: [1, 2, 3]}", "student.init={choice: [teacher, x]}"
    )
    assert discrete.size(6) == 3 * 2 * 25
    starts = ["student.layers={choice: [matched, bottom, top]}", "losses={}", "train={}"]
    assert space_of(SPACE, *starts).size(6) == 3 * 25


def test_layer_maps_from_a_choice_are_counted():
    space = space_of(SPACE, "layer_map={choice: [skip, monotone, random]}")
    assert space.layer_map_counts(6) == {2: 1 + 5 + 1, 3: 1 + 10 + 1, 4: 1 + 10 + 1}


def test_defaults_are_the_published_weights_for_cola():
    losses = space_of("task: cola\nteacher: t").settings.losses
    weights = {name: term.weight for name, term in losses.terms()}
    assert weights == {
        "wr_pair": 1,
        "wr_triple": 10,
        "ltr_pair": 1,
        "ltr_triple": 10,
        "logits": 1,
        "hidden": 0,
        "attention": 0,
    }
    assert losses.logits.temperature == 3
    assert losses.wr_triple.window == 21


def test_drawn_weights_of_zero_ignore_the_end_of_relations():
    space = space_of(
        f"{BASE}losses: {{{NO_RELATIONS}}}",
        "losses.wr_pair={choice: [10, 0]}",
        "losses.logits={choice: [1, 0]}",
        "losses.relations_until=0.25",
    )
    ends = {}
    for values in itertools.product((10, 0), (1, 0)):
        picked = dict(zip(("losses.wr_pair", "losses.logits"), values, strict=True))
        if any(values):
            losses = space.resolve(lambda name, _, picked=picked: picked[name]).losses
            ends[values] = losses.relations_end
    assert ends == {(0, 1): False, (10, 0): False, (10, 1): True}


BASE = "task: cola\nteacher: t\n"
NO_RELATIONS = "wr_pair: 0, wr_triple: 0, ltr_pair: 0, ltr_triple: 0"
BAD = [
    ("teacher: t", "s.yaml task: is required; it has no default"),
    ("task: cola", "s.yaml teacher: is required; it has no default"),
    (BASE + "tsk: 1", "s.yaml:3 tsk: unknown setting (did you mean task?); a space file has task,"),
    (BASE + "train: {lrr: 1}", "s.yaml:3 train.lrr: unknown setting (did you mean lr?); train has"),
    (BASE + "losses: {wr_pai: 3}", "s.yaml:3 losses.wr_pai: unknown setting (did you mean wr_pair"),
    (BASE + "layer_map: skp", "layer_map.word: found 'skp' (did you mean skip?); allowed: skip, "),
    (BASE + "student: {depth: two}", "student.depth: input should be a valid integer"),
    (BASE + "student: {layers: topp}", "student.layers: found 'topp' (did you mean top?); allowed"),
    (BASE + "student: {layers: [2, 1]}", "s.yaml:3 student.layers: [2, 1] is not strictly increa"),
    (
        BASE + "student: {init: random, layers: top}",
        "s.yaml:3 student.layers: top selects layers of the teacher, but student.init is random;",
    ),
    (BASE + "student: {depth: 0}", "student.depth: input should be greater than or equal to 1, fo"),
    (BASE + "train: {lr: -1}", "s.yaml:3 train.lr: input should be greater than 0, found -1"),
    (BASE + "train: {lr: .inf}", "s.yaml:3 train.lr: input should be a finite number, found inf"),
    (BASE + "losses: {logits: {alpha: 2}}", "losses.logits.alpha: input should be less than or eq"),
    (BASE + "losses: {wr_triple: {window: 20}}", "window 20 is even; use an odd number of words"),
    (
        BASE + "losses: {wr_pair: {distance: l2}}",
        "losses.wr_pair: discrepancy kl requires distance cosine, found l2; use l2, l1 or",
    ),
    (
        BASE + "losses: {wr_pair: 0, wr_triple: 0, ltr_pair: 0, ltr_triple: 0, logits: 0}",
        "s.yaml:3 losses: all 7 weights are 0, so there is nothing to train on; set at least",
    ),
    (BASE + "losses: {relations_until: 0}", "losses.relations_until: input should be greater tha"),
    (BASE + "losses: {relations_until: {uniform: [0.5, 2]}}", "s.yaml:3 losses.relations_until: i"),
    (
        BASE + f"losses: {{{NO_RELATIONS}, relations_until: 0.5}}",
        "s.yaml:3 losses.relations_until: there is no relation to end; leave it out",
    ),
    (
        BASE + f"losses: {{{NO_RELATIONS}, relations_until: {{choice: [0.5, 1]}}}}",
        "s.yaml:3 losses.relations_until: there is no relation to end; leave it out",
    ),
    (
        BASE + "losses: {logits: 0, relations_until: 0.5}",
        "s.yaml:3 losses.relations_until: nothing is left to train on, as losses.logits has wei",
    ),
    (
        BASE + "train: {batch_size: 10}\nresources: {workers: 4}",
        "can't be split evenly over 4 workers",
    ),
    (
        BASE + "train: {batch_size: 10, micro_batch_size: 4}",
        "is not a multiple of train.micro_batch",
    ),
    (BASE + "search: {sampler: tpee}", "search.sampler: found 'tpee' (did you mean tpe?); allowed"),
    (BASE + "search: {trials: {int: [1, 2]}}", "search.trials: can't be searched; distributions"),
    (BASE + "train: {lr: {uniform: [3, 1]}}", "s.yaml:3 train.lr: uniform has lo > hi: [3, 1]"),
    (BASE + "train: {lr: {uniform: [-1, 1]}}", "s.yaml:3 train.lr: input should be greater than 0"),
    (BASE + "student: {depth: {choice: [2, x]}}", "student.depth: input should be a valid integer"),
    ("teacher: t\ntask: mine", "s.yaml:2 task: task 'mine' is unknown, so task.train is"),
    (
        "teacher: t\ntask: {name: mine, train: a.csv, dev: b.txt2}",
        "'b.txt2' is not a csv, tsv, txt, json, jsonl, parquet or conll file",
    ),
    (
        "teacher: t\ntask: {name: cola, metric: spearman}",
        "metric spearman can't be used for classif",
    ),
    (
        "task: cola\nteacher: {}",
        "one of teacher.model and teacher.train is required, found neither",
    ),
    (
        "task: cola\nteacher: {model: a, train: {model: b}}",
        "is required, found both; `teacher: PATH`",
    ),
    ("task: cola\nteacher: {train: {lr: 1}}", "one of teacher.train.model and teacher.train.archi"),
    ("- a", "s.yaml:1: needs a mapping of settings, not a list"),
]


TEXT = "task: {name: text, kind: masked_lm, train: a.txt, dev: b.txt}\nteacher: t\n"
BAD += [
    (
        BASE + "evaluate_on: sst2",
        "s.yaml:3 evaluate_on: is only for task.kind masked_lm; students of",
    ),
    (
        TEXT.replace("b.txt", "b.txt, test: c.txt") + "evaluate_on: sst2",
        "s.yaml:3 evaluate_on: can't be combined with task.test",
    ),
    (
        TEXT + "evaluate_on:\n  task: {name: text, kind: masked_lm, train: a.txt, dev: b.txt}",
        "s.yaml:4 evaluate_on.task: must be a task with labels",
    ),
    (
        TEXT + "evaluate_on: {task: sst2, train: {batch_size: 15}}\nresources: {workers: 2}",
        "evaluate_on.train.batch_size 15 can't be split evenly over 2 workers",
    ),
    (
        TEXT + "evaluate_on: {task: sst2, train: {lr: {uniform: [1e-5, 1e-4]}}}",
        "s.yaml:3 evaluate_on.train.lr: can't be searched",
    ),
    (TEXT + "evaluate_on: {task: sst}", "s.yaml:3 evaluate_on.task: task 'sst' is unknown"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_spaces(text, message):
    assert message in "\n".join(problems_of(text))


def test_all_problems_at_once():
    text = (
        "tsk: cola\nteacher: t\nlosses: {wr_pai: 3, logits: {weight: -1}}\nlayer_map: skp\n"
        "train: {lr: {uniform: [3, 1]}, warmup: 2}\nsearch: {trials: {int: [1, 2]}}"
    )
    keys = {problem.split()[1].rstrip(":") for problem in problems_of(text)}
    assert keys == {
        "tsk",
        "task",
        "losses.wr_pai",
        "losses.logits.weight",
        "layer_map.word",
        "train.lr",
        "train.warmup",
        "search.trials",
    }


def test_a_wrong_distribution_is_reported_once():
    assert problems_of(BASE + "student: {depth: {int: [4, 2]}}") == [
        "s.yaml:3 student.depth: int has lo > hi: [4, 2]; write [2, 4]"
    ]
    assert problems_of("task: cola\nteacher: {choice: [a, b]}") == [
        "s.yaml:2 teacher: can't be searched; distributions are allowed in "
        "student, layer_map, losses, train"
    ]


def test_options_that_draw_a_setting_differently_are_refused():
    text = BASE + "losses:\n  choice:\n    - {wr_pair: {%s}}\n    - {wr_pair: {%s}, ltr_pair: 0}"
    lows = "loguniform: [0.1, 10]"
    assert "losses.wr_pair" in space_of(text % (lows, lows)).distributions()
    assert problems_of(text % (lows, "loguniform: [10, 1000]")) == [
        "s.yaml:3 losses.wr_pair: two options of a choice give it different distributions "
        "(numbers 0.1 to 10, log scale; numbers 10 to 1000, log scale); use the same distribution "
        "in all options, or move it out of the choice"
    ]


def test_a_wrong_override_is_reported_at_the_option():
    assert problems_of(BASE, "train.lr=-1")[0].startswith("--set train.lr: input should")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            BASE + "student: {depth: {int: [2, 9]}}",
            ["s.yaml:3 student.depth: depth 9 is above the teacher's 6 layers; use 1–6"],
        ),
        (
            BASE + "layer_map: [0, 2, 4, 7]",
            [
                "s.yaml:3 layer_map.word: [0, 2, 4, 7] names layer 7, the teacher has 6 layers "
                "(0 is the embeddings); use 0–6"
            ],
        ),
        (
            BASE + "student: {depth: {int: [2, 4]}}\nlayer_map: {layer: [0, 2, 4, 6]}",
            [
                "s.yaml:4 layer_map.layer: [0, 2, 4, 6] has 4 entries, a student of depth 2 needs "
                "3: one for the embeddings (layer 0) and one for each layer "
                "(it does not fit depth 4 either)"
            ],
        ),
        (
            BASE + "student: {depth: {int: [2, 3]}, layers: {choice: [top, [1, 2, 3], [1, 7]]}}",
            [
                "s.yaml:3 student.layers: [1, 2, 3] has 3 layers, a student of depth 2 needs 2",
                "s.yaml:3 student.layers: [1, 7] names layer 7, the teacher has 6 layers; use 1–6 "
                "(it does not fit depth 3 either)",
            ],
        ),
        (
            BASE + "student: {init: {choice: [teacher, random]}, layers: {choice: [matched, top]}}",
            [
                "s.yaml:3 student.layers: top selects layers of the teacher, but student.init is "
                "random; leave layers out, or use init: teacher"
            ],
        ),
        (
            BASE + "student: {depth: 7}\nlayer_map: {choice: [skip, [0, 1]]}",
            ["s.yaml:3 student.depth: depth 7 is above the teacher's 6 layers; use 1–6"],
        ),
    ],
)
def test_what_does_not_fit_the_teacher(text, expected):
    assert problems_of(text, teacher_layers=6) == expected


def test_what_passed_the_check_can_be_drawn():
    text = BASE + "student: {depth: {int: [1, 6]}}\nlayer_map: {choice: [skip, monotone, free]}"
    space = space_of(text)
    space.check_teacher(6)
    for seed in range(50):
        space.draw(RandomSuggester(seed), teacher="t", teacher_layers=6, seed=0)


# Layers and width of the models that shipped spaces name and that are not shipped themselves.
MODELS = {
    "bert-base-uncased": (12, Width(768, 12, 3072)),
    "sentence-transformers/all-MiniLM-L6-v2": (6, Width(384, 12, 1536)),
}


@pytest.mark.parametrize("name", sorted(shipped_spaces()))
def test_shipped_spaces_fit_their_teachers(name):
    space = load_space(shipped_spaces()[name])
    teacher = space.settings.teacher
    model = teacher.model or (teacher.train and teacher.train.model)
    is_here = model is None or shipped_teacher(model) is not None
    layers, width = (teacher_depth(teacher), teacher_width(teacher)) if is_here else MODELS[model]
    space.check_teacher(layers)
    space.check_width(width)
    assert space.size(layers) > 1


def test_a_space_survives_its_own_yaml(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(space_of(SPACE).source.tree))
    assert load_space(path).tree == space_of(SPACE).tree


def test_what_scores_students_of_masked_words():
    space = space_of(TEXT + "evaluate_on: wnut17", "evaluate_on.train.steps=5")
    draw = {"teacher": "t", "teacher_layers": 12, "seed": 3}
    spec = space.draw(RandomSuggester(0), **draw)
    assert spec.score_name == space.settings.score_name == "wnut17 f1"
    fine_tuning = spec.fine_tuning("some/student")
    assert fine_tuning.task.name == "wnut17"
    assert fine_tuning.task.test is None  # each trial would look at it
    assert (fine_tuning.student.init, fine_tuning.student.depth) == ("some/student", 3)
    assert (fine_tuning.train.steps, fine_tuning.train.evaluations) == (5, 1)
    assert (fine_tuning.seed, fine_tuning.teacher) == (3, None)
    assert not fine_tuning.losses.needs_teacher
    plain = space_of(TEXT).draw(RandomSuggester(0), **draw)
    assert plain.score_name == "accuracy"
    assert plain.digest() != spec.digest()
