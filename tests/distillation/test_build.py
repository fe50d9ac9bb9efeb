"""The student before its first step."""

import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.build import build_initial_student, load_teacher
from lkd_tune.models.families import width_of
from lkd_tune.models.loading import load_tokenizer
from lkd_tune.models.student import select_layers
from lkd_tune.models.width.importance import load_importance
from lkd_tune.models.width.pruning import prune_width
from tests.support.families import make_classifier, make_csv

NARROW = {"hidden_size": 16, "heads": 2, "intermediate_size": 24}


def _spec(folder, **student):
    data = make_csv(folder)
    return TrialSpec.model_validate(
        {
            "task": {"name": "own", "train": data, "dev": data},
            "teacher": make_classifier(folder / "teacher"),
            "student": {"depth": 2, **student},
            "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        }
    )


@pytest.mark.parametrize("width", [{}, NARROW])
@pytest.mark.parametrize(
    ("layers", "selected"),
    [("matched", (2, 4)), ("bottom", (1, 2)), ("top", (3, 4)), ([1, 4], (1, 4))],
)
def test_a_student_starts_as_the_layers_that_student_layers_selects(
    tmp_path, layers, selected, width
):
    spec = _spec(tmp_path, layers=layers, **width)
    teacher = load_teacher(spec, tmp_path)
    tokens = load_tokens(spec.task, "train", load_tokenizer(spec.teacher), cache=tmp_path)
    student = build_initial_student(spec, teacher, tokens, None, tmp_path)
    if width:
        cpu = torch.device("cpu")
        importance = load_importance(spec.teacher, teacher, tokens, cpu, tmp_path)
        teacher = prune_width(teacher, width_of(student), importance)
    expected = select_layers(teacher, selected)
    found = student.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name])


def test_layers_that_the_teacher_does_not_have_are_refused(tmp_path):
    with pytest.raises(
        SpecError, match=r"student.layers: \[3, 5\] names layer 5, the teacher has 4"
    ):
        load_teacher(_spec(tmp_path, layers=[3, 5]), tmp_path)
