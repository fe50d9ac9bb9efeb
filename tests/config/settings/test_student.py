import pytest
from pydantic import ValidationError

from lkd_tune.config.settings.student import StudentSettings


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("matched", (4, 8, 12)),
        ("bottom", (1, 2, 3)),
        ("top", (10, 11, 12)),
        ([1, 2, 12], (1, 2, 12)),
    ],
)
def test_a_student_starts_from_the_layers_that_are_named(layers, expected):
    assert StudentSettings(layers=layers).start_layers(12, (0, 4, 8, 12)) == expected


@pytest.mark.parametrize("layers", [[], [0, 1, 2], [2, 2, 3], [3, 1, 2]])
def test_layers_are_named_once_and_in_order(layers):
    with pytest.raises(ValidationError, match="is not strictly increasing from 1 on"):
        StudentSettings(layers=layers)


def test_a_student_with_random_weights_has_no_layers_of_its_teacher():
    with pytest.raises(ValidationError, match=r"but student\.init is random; leave layers out"):
        StudentSettings(init="random", layers="top")
    assert StudentSettings(init="random").layers == "matched"


def test_which_students_start_from_a_model():
    starts = {
        init: StudentSettings(init=init).starts_from_model for init in ("teacher", "random", "x")
    }
    assert starts == {"teacher": False, "random": False, "x": True}
