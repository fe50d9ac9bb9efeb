"""The forms in which trackers are named, and what is wrong with others."""

from importlib import import_module

import jsonschema
import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.schema import space_schema
from lkd_tune.config.settings.trackers import TrackerSettings
from lkd_tune.config.source import apply_override, parse_source
from lkd_tune.tuning.trackers.build import TRACKERS


def settings(text, *overrides):
    source = parse_source(f"task: cola\nteacher: t\ntrackers: {text}\n", "mine.yaml")
    for override in overrides:
        apply_override(source, override)
    return build_space(source).settings.trackers.model_dump(exclude_defaults=True)


MLFLOW = {"mlflow": {"experiment": "cola"}}


@pytest.mark.parametrize(
    ("text", "overrides", "found"),
    [
        ("null", [], {}),
        ("[]", [], {}),
        ("tensorboard", [], {"tensorboard": True}),
        ("[tensorboard, mlflow, wandb]", [], {"tensorboard": True, "mlflow": {}, "wandb": {}}),
        ("[wandb, {mlflow: {experiment: cola}}]", [], {"wandb": {}, **MLFLOW}),
        ("{mlflow: {experiment: cola}, wandb: null}", [], MLFLOW),
        ("mlflow", ["trackers.mlflow.experiment=cola"], MLFLOW),
        ("[wandb]", ["trackers.mlflow.experiment=cola"], {"wandb": {}, **MLFLOW}),
        ("null", ["trackers.mlflow.experiment=cola"], MLFLOW),
        ("[wandb, mlflow]", ["trackers.wandb=false"], {"mlflow": {}}),
        ("[wandb, mlflow]", ["trackers=tensorboard"], {"tensorboard": True}),
    ],
)
def test_forms(text, overrides, found):
    assert settings(text, *overrides) == found
    tree = {"task": "cola", "teacher": "t", "trackers": parse_source(f"a: {text}", "").tree["a"]}
    if text != "null":
        jsonschema.validate(tree, space_schema())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tensorbord]", r"mine\.yaml:3 trackers\.tensorbord: unknown .*did you mean tensorboard"),
        ("[mlflow, mlflow]", "trackers: lists mlflow twice"),
        ("[{mlflow: {url: x}}]", r"trackers\.mlflow\.url: unknown .*did you mean uri"),
        ("{mlflow: {uri: 'https://me:hidden@host'}}", "uri: contains a password; set it"),
        ("5", "trackers: input should be"),
    ],
)
def test_what_is_wrong_is_reported(text, message):
    with pytest.raises(SpecError, match=message) as caught:
        settings(text)
    assert "hidden" not in str(caught.value)


def test_each_tracker_that_can_be_set_has_a_class():
    for name, class_name in TRACKERS.items():
        assert hasattr(import_module(f"lkd_tune.tuning.trackers.{name}"), class_name)
    assert [*TRACKERS] == [*TrackerSettings.model_fields]
