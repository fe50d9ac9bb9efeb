import pytest

from lkd_tune.config.settings.known_tasks import TASKS, is_file_name
from lkd_tune.config.settings.task import TaskSettings


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
