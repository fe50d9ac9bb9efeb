"""What a search says before its first trial."""

from __future__ import annotations

from lkd_tune.search.preparation import _moved, doubt_of_teacher
from lkd_tune.spec.source import parse_source
from lkd_tune.spec.space import build_space
from lkd_tune.spec.start import Start

TASK = "task: {name: sst2, train: train.csv, dev: dev.csv}\n"


def settings(teacher: str):
    return build_space(parse_source(TASK + teacher, "space.yaml")).settings


def test_a_teacher_that_knows_something_is_not_doubted():
    assert doubt_of_teacher(settings("teacher: somewhere"), 0.01) is None


def test_of_a_useless_teacher_it_is_said_what_to_look_at():
    given = doubt_of_teacher(settings("teacher: somewhere"), 0.0)
    assert given is not None
    assert "task.labels" in given
    trained = doubt_of_teacher(settings("teacher: {train: {model: bert, epochs: 1}}"), -0.02)
    assert trained is not None
    assert "teacher.train.epochs" in trained


def test_it_is_told_what_stands_for_a_value_that_the_space_lacks():
    start = Start(
        "published", {"train.lr": 0.00122474, "x": "no"}, {"train.lr": 5e-5, "x": 1, "y": 2}
    )
    told = [_moved(start, name) for name in start.moved]
    assert told == ["train.lr 5e-05 (0.00122 instead)", "x 1 (no instead)", "y 2"]
