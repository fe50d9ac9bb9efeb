import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.source import apply_override, parse_source, read_source

TEXT = """task: cola
train:
  lr: 5e-5
  epochs: 3
losses:
  wr_pair: 2
  wr_triple: {loguniform: [1, 10]}
"""


def overridden(*overrides):
    source = parse_source(TEXT, "s.yaml")
    for override in overrides:
        apply_override(source, override)
    return source


def test_numbers_are_read_as_in_yaml_1_2():
    tree = parse_source("a: 5e-5\nb: 1E3\nc: -2.5e+1\nd: '5e-5'\ne: 12e", "s.yaml").tree
    assert tree == {"a": 5e-5, "b": 1000.0, "c": -25.0, "d": "5e-5", "e": "12e"}


def test_places():
    source = parse_source(TEXT, "s.yaml")
    assert source.place(("train", "lr")) == "s.yaml:3"
    assert source.place(("losses", "wr_triple", "loguniform", 1)) == "s.yaml:7"
    assert source.place(("train", "warmup")) == "s.yaml:2"  # the nearest that was written
    assert source.place(("search", "trials")) == "s.yaml"


def test_a_block_is_at_its_line_and_at_what_changed_it():
    source = overridden("train.lr=1", "losses=ckd")
    assert source.place(("train",)) == "s.yaml:2 with --set train.lr"
    assert source.place(("train", "lr")) == "--set train.lr"
    assert source.place(("train", "epochs")) == "s.yaml:4"
    assert source.place(("losses", "wr_pair")) == "--set losses"
    assert source.place(("task",)) == "s.yaml:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "s.yaml:1: not valid YAML"),
        ("a: 1\n\tb: 2", "s.yaml:2: not valid YAML"),
        ("- 1\n- 2", "s.yaml:1: needs a mapping of settings, not a list"),
        ("cola", "needs a mapping of settings, not a str"),
        ("a: 1\nb: 2\na: 3", "s.yaml:3 a: is already set at s.yaml:1"),
        ("t:\n  x: 1\n  x: 2", "s.yaml:3 t.x: is already set at s.yaml:2"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_bad_files(text, message):
    with pytest.raises(SpecError) as error:
        parse_source(text, "s.yaml")
    assert message in str(error.value)


def test_empty_file_has_no_settings():
    assert parse_source("# nothing\n", "s.yaml").tree == {}


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_unreadable_file(tmp_path, content):
    path = tmp_path / "s.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=r"s.yaml: can't be read"):
        read_source(path)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.lr=1e-4", ("train", "lr"), 1e-4),
        ("train.steps=10", ("train", "steps"), 10),
        ("search.baseline=false", ("search", "baseline"), False),
        ("task.test=", ("task", "test"), None),
        ("student.depth={int: [2, 4]}", ("student", "depth"), {"int": [2, 4]}),
        ("task.train=/a=b.csv", ("task", "train"), "/a=b.csv"),
        ("losses.wr_triple=3", ("losses", "wr_triple"), 3),
        ("train={steps: 5}", ("train",), {"steps": 5}),
    ],
)
def test_override_sets_a_leaf_or_a_block(override, path, value):
    source = overridden(override)
    found = source.tree
    for part in path:
        found = found[part]
    assert found == value
    assert source.place(path) == f"--set {override.partition('=')[0]}"


def test_override_leaves_the_rest():
    assert overridden("train.lr=1").tree["train"] == {"lr": 1, "epochs": 3}


def test_override_below_a_shorthand_keeps_what_it_stood_for():
    tree = overridden("task.train=a.csv", "losses.wr_pair.distance=l2").tree
    assert tree["task"] == {"name": "cola", "train": "a.csv"}
    assert tree["losses"]["wr_pair"] == {"weight": 2, "distance": "l2"}


def test_later_override_wins():
    assert overridden("train.lr=1", "train.lr=2").tree["train"]["lr"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "--set train.lr: is not of the form key.path=value"),
        ("=3", "is not of the form key.path=value"),
        ("train..lr=3", "is not of the form key.path=value"),
        ("train.lr=[1", "--set train.lr: '[1' is not a YAML value"),
        ("losses.wr_triple.weight=3", "losses.wr_triple is a distribution; replace all of it"),
    ],
)
def test_bad_overrides(override, message):
    with pytest.raises(SpecError) as error:
        overridden(override)
    assert message in str(error.value)
