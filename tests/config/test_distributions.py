import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lkd_tune.config.distributions import (
    Choice,
    Numbers,
    looks_like_distribution,
    parse_distribution,
)
from tests.support.draws import RandomSuggester


@pytest.mark.parametrize(
    ("block", "expected", "size"),
    [
        ({"choice": [3, 4, 6]}, Choice((3, 4, 6)), 3),
        ({"uniform": [1, 4]}, Numbers(1, 4), math.inf),
        ({"uniform": [1, 1]}, Numbers(1, 1), 1),
        ({"uniform": [0, 1], "step": 0.1}, Numbers(0, 1, step=0.1), 11),
        ({"uniform": [1, 4], "log": True}, Numbers(1, 4, log=True), math.inf),
        ({"loguniform": [0.1, 100]}, Numbers(0.1, 100, log=True), math.inf),
        ({"int": [2, 4]}, Numbers(2, 4, integer=True), 3),
        ({"int": [2, 9], "step": 3}, Numbers(2, 9, integer=True, step=3), 3),
    ],
)
def test_parse(block, expected, size):
    assert looks_like_distribution(block)
    assert parse_distribution(block) == expected
    assert parse_distribution(block).size == size


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"uniform": [3, 1]}, r"uniform has lo > hi: \[3, 1\]; write \[1, 3\]"),
        ({"uniform": [1]}, r"uniform needs \[lo, hi\], two numbers, found \[1\]"),
        ({"uniform": 3}, "two numbers, found 3"),
        ({"uniform": ["a", "b"]}, "two numbers"),
        ({"uniform": [True, 2]}, "two numbers"),
        ({"uniform": [0, math.inf]}, "needs finite ends"),
        ({"int": [1.5, 2]}, r"int needs \[lo, hi\], two integers"),
        ({"loguniform": [0, 1]}, r"a log scale needs lo > 0, found \[0, 1\]"),
        ({"uniform": [1, 2], "log": "yes"}, "log must be true or false, found 'yes'"),
        ({"uniform": [1, 2], "step": 0}, "step must be a positive number, found 0"),
        ({"int": [1, 2], "step": 0.5}, "step must be a positive number"),
        ({"loguniform": [1, 2], "step": 1}, "step can't be used with a log scale"),
        ({"choice": []}, "choice needs a list of options"),
        ({"choice": "abc"}, "choice needs a list of options, found 'abc'"),
        ({"choice": [1, 2, 1]}, "choice lists an option twice"),
        ({"choice": [1], "log": True}, "choice does not take log"),
        ({"choice": [1, Numbers(2, 3)]}, "an option of a choice can't be a distribution itself"),
        ({"uniform": [1, 2], "base": 10}, "uniform does not take base"),
        ({"uniform": [1, 2], "int": [1, 2]}, "found uniform, int"),
    ],
)
def test_wrong_blocks(block, message):
    with pytest.raises(ValueError, match=message):
        parse_distribution(block)


@pytest.mark.parametrize("value", [3, "choice", [1, 2], {"weight": 1}, None])
def test_values_are_no_distributions(value):
    assert not looks_like_distribution(value)


@pytest.mark.parametrize(
    ("block", "probes"),
    [
        ({"choice": ["a", None]}, ("a", None)),
        ({"uniform": [1, 4]}, (1, 4)),
        ({"int": [2, 6], "step": 2}, (2, 4, 6)),
        ({"int": [1, 1000]}, (1, 1000)),
    ],
)
def test_probes(block, probes):
    assert parse_distribution(block).probes == probes


@given(seed=st.integers(0, 1000))
def test_draws_lie_within(seed):
    suggester = RandomSuggester(seed)
    assert 0.1 <= parse_distribution({"uniform": [0.1, 2]}).draw("a", suggester) <= 2
    assert parse_distribution({"int": [2, 9], "step": 3}).draw("b", suggester) in (2, 5, 8)
    assert parse_distribution({"choice": [None, True, 2, "x"]}).draw("c", suggester) in (
        None, True, 2, "x",
    )  # fmt: skip


def test_options_that_a_study_cannot_store_are_drawn_by_their_text():
    suggester = RandomSuggester(0)
    options = [[0, 2, 4], {"weight": 1}]
    assert parse_distribution({"choice": options}).draw("c", suggester) in options
    assert suggester.asked["c"] == ("[0, 2, 4]", '{"weight": 1}')


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"choice": ["skip", [0, 3]]}, "one of skip, [0, 3]"),
        ({"loguniform": [0.1, 100]}, "numbers 0.1 to 100, log scale"),
        ({"int": [2, 8], "step": 2}, "integers 2 to 8 in steps of 2"),
    ],
)
def test_in_words(block, text):
    assert str(parse_distribution(block)) == text
