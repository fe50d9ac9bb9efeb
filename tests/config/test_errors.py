import pickle

import pytest

from lkd_tune.config.errors import Problem, SpecError, did_you_mean


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("s.yaml:3", "train.lr", "is wrong"), "s.yaml:3 train.lr: is wrong"),
        (Problem("s.yaml", "", "is wrong"), "s.yaml: is wrong"),
        (Problem("", "teacher", "is wrong"), "teacher: is wrong"),
        (Problem("", "", "is wrong"), "is wrong"),
    ],
)
def test_problem_as_text(problem, text):
    assert str(problem) == text


def test_an_error_lists_all_problems_and_crosses_processes():
    error = SpecError([Problem("a", "", "x"), Problem("b", "", "y")])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "a: x\nb: y"
    assert again.problems == error.problems


def test_nearest_word():
    assert did_you_mean("skp", ["skip", "last"]) == " (did you mean skip?)"
    assert did_you_mean("zzz", ["skip", "last"]) == ""
