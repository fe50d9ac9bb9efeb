"""The JSON Schema of space files says what the loader says, as far as one setting goes."""

from copy import deepcopy

import jsonschema
import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.schema import space_schema
from lkd_tune.config.shipped import shipped_spaces
from lkd_tune.config.source import Source, apply_override, read_source
from lkd_tune.config.space import SEARCHABLE

SCHEMA = space_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
LEAST = {"task": "acceptability", "teacher": "t"}


def overridden(override):
    source = Source("space.yaml", deepcopy(LEAST))
    if override:
        apply_override(source, override)
    return source


def test_it_is_a_schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["required"] == ["task", "teacher"]


@pytest.mark.parametrize("path", shipped_spaces().values(), ids=lambda path: path.name)
def test_shipped_spaces(path):
    VALIDATOR.validate(read_source(path).tree)


def test_every_searched_leaf_may_be_a_distribution():
    for name in SEARCHABLE:
        for key, setting in leaves(SCHEMA["properties"][name]):
            kinds = {kind for form in setting["anyOf"] for kind in form.get("required", ())}
            numeric = {form.get("type") for form in setting["anyOf"]} & {"number", "integer"}
            wanted = {"integer": {"int"}, "number": {"uniform", "loguniform", "int"}}
            assert kinds == {"choice"}.union(*(wanted[kind] for kind in numeric)), key


def leaves(node, key=""):
    for form in node["anyOf"]:
        if "$ref" in form:
            block = SCHEMA["$defs"][form["$ref"].rpartition("/")[2]]
            for name, inner in block["properties"].items():
                yield from leaves(inner, f"{key}.{name}")
            return
    yield key, node


GOOD = [
    "",
    "task={name: mine, kind: regression, train: a.csv, dev: b.csv}",
    "task={name: mine, train: a.csv, dev: b.csv, augment: 20}",
    "teacher.model=other",
    "student.depth={int: [2, 4], step: 2}",
    "student.hidden_size={choice: [null, 64, 128]}",
    "layer_map=[0, 2, 4, 6]",
    "layer_map={choice: [skip, monotone]}",
    "layer_map.word={choice: [[0, 1, 2, 6], last]}",
    "losses.wr_pair=3",
    "losses.wr_pair={loguniform: [0.1, 100]}",
    "losses.wr_triple.weight={uniform: [0, 10], step: 0.5}",
    "losses.wr_triple.window={choice: [11, 21, null]}",
    "losses.ltr_triple={choice: [0, {weight: {loguniform: [1, 100]}}]}",
    "train.lr={uniform: [1e-5, 1e-4], log: true}",
    "train={choice: [{lr: 1e-4}, {lr: {uniform: [1e-5, 1e-4]}, epochs: 2}]}",
    "limits=[parameters <= 60e6, latency_ms<=5]",
    "limits=disk_mb <= 100",
    "limits={parameters: 60e6}",
    "objectives=[score, flops]",
    "confirm=null",
    "search.warm_start=[runs/first]",
]
BAD = [
    "trian.lr=1e-4",
    "train.lrr=1e-4",
    "train.lr=0",
    "train.lr=fast",
    "train.lr={loguniform: [0, 1]}",
    "train.lr={loguniform: [1e-5, 1e-4, 1e-3]}",
    "train.lr={loguniform: [1e-5, 1e-4], step: 1e-5}",
    "train.lr={uniform: [1e-5, 1e-4], int: [1, 2]}",
    "train.lr={uniform: [1e-5, big]}",
    "train.lr={uniform: 1e-5}",
    "train.lr={choice: []}",
    "train.lr={choice: [1e-4, 1e-4]}",
    "train.lr={choice: [1e-4, fast]}",
    "train.lr={choice: [1e-4, {uniform: [1e-4, 1e-3]}]}",
    "train.precision={uniform: [0, 1]}",
    "train.precision=fp16",
    "student.depth={int: [0, 3]}",
    "student.depth={int: [1.5, 3]}",
    "student.depth=two",
    "layer_map=skipp",
    "layer_map={choice: [skip, lst]}",
    "losses.wr_pair={wieght: 1}",
    "losses.wr_pair=-1",
    "losses.ltr_triple={choice: [0, {weihgt: 1}]}",
    "search.trials={int: [4, 8]}",
    "search.sampler=tpee",
    "resources.gpus=2",
    "task.max_length={choice: [64, 128]}",
    "task.metric=acuracy",
    "limits=[parameters < 60e6]",
    "limits=[params <= 60e6]",
    "objectives=[scores]",
    "confirm.seeds=1",
    "teacher=[a, b]",
]


@pytest.mark.parametrize("override", GOOD)
def test_what_is_right_is_allowed(override):
    source = overridden(override)
    build_space(source)
    VALIDATOR.validate(source.tree)


@pytest.mark.parametrize("override", BAD)
def test_what_is_wrong_is_refused(override):
    source = overridden(override)
    assert not VALIDATOR.is_valid(source.tree)
    with pytest.raises(SpecError):
        build_space(source)


@pytest.mark.parametrize("key", LEAST)
def test_what_is_needed(key):
    tree = {name: value for name, value in LEAST.items() if name != key}
    assert not VALIDATOR.is_valid(tree)
