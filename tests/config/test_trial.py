import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lkd_tune.config.errors import SpecError
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec, read_trial_spec
from tests.config.test_space import SPACE, space_of
from tests.support.draws import RandomSuggester


def spec_of(seed=0):
    return space_of(SPACE).draw(RandomSuggester(seed), teacher="t", teacher_layers=6, seed=seed)


@given(seed=st.integers(0, 10**6))
def test_json_there_and_back(seed):
    spec = spec_of(seed)
    again = TrialSpec.model_validate_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert again.digest() == spec.digest()


def test_different_specs_have_different_digests():
    assert len({spec_of(seed).digest() for seed in range(20)}) == 20
    assert len(spec_of().digest()) == 16


def test_a_map_of_the_wrong_length_is_refused():
    changed = {**spec_of().model_dump(), "student": {"depth": 5}}
    with pytest.raises(ValidationError, match="needs 6 entries for depth 5"):
        TrialSpec.model_validate(changed)


def test_a_teacher_is_needed_by_the_losses():
    changed = {**spec_of().model_dump(), "teacher": None}
    with pytest.raises(
        ValidationError, match=r"these losses or student\.init: teacher require a teacher"
    ):
        TrialSpec.model_validate(changed)


def test_random_maps_are_one_draw_for_both_relations():
    layer_map = ResolvedLayerMap(word="random", layer="random")
    at = {"seed": 3, "teacher_layers": 12, "depth": 4}
    drawn = [layer_map.at_step(step, **at) for step in range(20)]
    assert all(word == layer for word, layer in drawn)
    assert len(set(drawn)) > 10
    assert drawn == [layer_map.at_step(step, **at) for step in range(20)]


def test_fixed_maps_stay():
    layer_map = ResolvedLayerMap(word=(0, 2, 6), layer=(0, 1, 6))
    assert layer_map.at_step(9, seed=0, teacher_layers=6, depth=2) == ((0, 2, 6), (0, 1, 6))


@pytest.mark.parametrize("wrap", [lambda tree: tree, lambda tree: {"score": 0.5, "spec": tree}])
def test_read_a_spec_or_a_student(tmp_path, wrap):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(wrap(json.loads(spec_of().to_json()))))
    assert read_trial_spec(path) == spec_of()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read: No such file"),
        ("{", "x.json: is not JSON"),
        ("[1]", "x.json"),
        ('{"task": {"name": "cola"}}', "x.json teacher: Field required"),
    ],
)
def test_bad_spec_files(tmp_path, text, message):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError) as error:
        read_trial_spec(path)
    assert message in str(error.value)
