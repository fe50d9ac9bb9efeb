"""What a search says before its first trial."""

from __future__ import annotations

from lkd_tune.search.preparation import doubt_of_teacher
from lkd_tune.spec.source import parse_source
from lkd_tune.spec.space import build_space

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
