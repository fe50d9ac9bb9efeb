import pytest
from pydantic import BaseModel, ValidationError

from lkd_tune.config.settings.blocks import SpaceSettings, TaskSettings
from lkd_tune.config.settings.known_tasks import TASKS, is_file_name
from lkd_tune.config.settings.losses import LossSettings


@pytest.mark.parametrize("name", TASKS)
def test_known_tasks_are_complete(name):
    task = TaskSettings(name=name)
    assert task.train
    assert task.dev
    without = ("regression", "question_answering", "extractive_summary")
    assert (task.labels is None) == (task.kind in without)


def test_a_setting_of_a_known_task_can_be_overridden():
    task = TaskSettings(name="cola", metric="accuracy", max_length=64)
    assert (task.metric, task.max_length, task.data) == ("accuracy", 64, "nyu-mll/glue")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("classification", ("words", None, "label")),
        ("tagging", ("words", None, "ner_tags")),
        ("question_answering", ("words", "context", "answers")),
        ("extractive_summary", ("words", None, "summary")),
        ("masked_lm", ("words", None, None)),
    ],
)
def test_columns_that_are_not_named_are_called_as_usual(kind, expected):
    task = TaskSettings(
        name="own", kind=kind, train="a.jsonl", dev="b.jsonl", columns={"text": "words"}
    )
    assert (task.columns.text, task.columns.pair, task.columns.label) == expected


def test_local_files_replace_where_a_known_task_lies():
    task = TaskSettings(name="cola", train="in_domain_train.tsv", dev="in_domain_dev.tsv")
    assert (task.data, task.config, task.test) == (None, None, None)
    assert (task.metric, task.columns.text) == ("matthews", "sentence")
    assert task.column_names == ["source", "label", "mark", "sentence"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.csv", True), ("b/c.tsv.gz", True), ("x.parquet", True), ("validation", False),
     ("train[:10%]", False), ("csv", False)],
)  # fmt: skip
def test_file_names(name, expected):
    assert is_file_name(name) == expected


def test_a_number_alone_is_a_weight():
    losses = LossSettings.model_validate({"wr_pair": 2.5, "logits": 0})
    assert (losses.wr_pair.weight, losses.wr_pair.distance) == (2.5, "cosine")
    assert losses.logits.weight == 0


@pytest.mark.parametrize(
    ("losses", "needs_teacher", "needs_relations"),
    [
        ({}, True, True),
        ({"wr_pair": 0, "wr_triple": 0, "ltr_pair": 0, "ltr_triple": 0}, True, False),
        (
            {"wr_pair": 0, "wr_triple": 0, "ltr_pair": 0, "ltr_triple": 0, "logits": {"alpha": 1}},
            False,
            False,
        ),
        ({"logits": 0}, True, True),
    ],
)
def test_what_the_losses_need(losses, needs_teacher, needs_relations):
    settings = LossSettings.model_validate(losses)
    assert settings.needs_teacher == needs_teacher
    assert settings.needs_relations == needs_relations


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
