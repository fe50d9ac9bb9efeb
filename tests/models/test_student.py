"""Students made from teachers of every family."""

import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.models.loading import describe_model, load_model, read_depth
from lkd_tune.models.student import build_student
from tests.support.families import CONFIGS, make_classifier


@pytest.mark.parametrize("family", CONFIGS)
def test_a_student_of_all_layers_is_the_teacher(tmp_path, family):
    teacher = load_model(make_classifier(tmp_path / "t", family))
    student = build_student(StudentSettings(depth=4), teacher, (1, 2, 3, 4), 2).eval()
    ids = torch.randint(5, 12, (3, 9))
    assert torch.equal(student(ids).logits, teacher(ids).logits)


@pytest.mark.parametrize("family", CONFIGS)
def test_each_student_layer_is_the_mapped_teacher_layer(tmp_path, family):
    teacher = load_model(make_classifier(tmp_path / "t", family))
    student = build_student(StudentSettings(depth=2), teacher, (2, 4), 2)
    assert student.config.num_hidden_layers == 2
    theirs, ours = teacher.state_dict(), student.state_dict()
    assert len(student.base_model.state_dict()) < len(teacher.base_model.state_dict())
    for name, weight in ours.items():
        source = name.replace(".layer.0.", ".layer.1.") if ".layer.0." in name else name
        source = source.replace(".layer.1.", ".layer.3.") if ".layer.1." in name else source
        assert torch.equal(weight, theirs[source]), name


@pytest.mark.parametrize("family", CONFIGS)
def test_a_saved_student_loads_again(tmp_path, family):
    teacher = load_model(make_classifier(tmp_path / "t", family))
    build_student(StudentSettings(depth=1), teacher, (4,), 2).save_pretrained(tmp_path / "s")
    assert describe_model(str(tmp_path / "s"))["layers"] == read_depth(str(tmp_path / "s")) == 1
    assert read_depth(str(tmp_path / "t")) == 4


def test_a_random_student_has_the_architecture_but_not_the_weights(tmp_path):
    teacher = load_model(make_classifier(tmp_path / "t"))
    student = build_student(StudentSettings(depth=2, init="random"), teacher, (), 2)
    name = "bert.embeddings.word_embeddings.weight"
    assert student.state_dict()[name].shape == teacher.state_dict()[name].shape
    assert not torch.equal(student.state_dict()[name], teacher.state_dict()[name])


def test_a_given_student_must_have_the_depth(tmp_path):
    folder = make_classifier(tmp_path / "t")
    assert build_student(StudentSettings(depth=4, init=folder), None, (), 2).training
    with pytest.raises(SpecError, match=r"has 4 layers, but student\.depth is 3"):
        build_student(StudentSettings(depth=3, init=folder), None, (), 2)
