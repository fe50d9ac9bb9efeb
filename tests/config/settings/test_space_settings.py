import pytest
from pydantic import BaseModel, ValidationError

from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.settings.task import TaskSettings


def test_settings_are_frozen_and_refuse_unknown_keys():
    task = TaskSettings(name="cola")
    with pytest.raises(ValidationError):
        task.name = "sst2"
    with pytest.raises(ValidationError):
        TaskSettings(name="cola", metrik="accuracy")


def all_blocks(model=SpaceSettings):
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from all_blocks(kind)


def test_names_do_not_hide_what_pydantic_has():
    reserved = set(dir(BaseModel))
    assert not [name for block in all_blocks() for name in block.model_fields if name in reserved]
