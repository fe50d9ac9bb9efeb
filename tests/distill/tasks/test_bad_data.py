"""What is said of data that a task can't use: which file, row and column."""

import json

import pytest

from lkd_tune.distill.evaluate import check_labels
from lkd_tune.distill.models import load_config
from lkd_tune.distill.tasks.data import check_data, load_split
from lkd_tune.spec.errors import SpecError
from lkd_tune.spec.settings import TaskSettings
from tests.distill.families import make_classifier


def _task(path, kind, **more):
    return TaskSettings(name="own", kind=kind, train=str(path), dev=str(path), **more)


def _squad(*answers, context="the film was good"):
    qas = [
        {"id": str(i), "question": "what", "answers": [{"text": text, "answer_start": at}]}
        for i, (text, at) in enumerate(answers)
    ]
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]})


BAD = [
    ("multi_label", "a.tsv", "text\tlabel\nx\t1\ny\tgood\n", {"labels": ["a", "b"]},
     "row 2, column label: 'good' is no class; task.labels: a, b"),
    ("multi_label", "a.tsv", "text\tlabel\nx\t0,2\n", {"labels": ["a", "b"]},
     "row 1, column label: has the label 2, allowed is 0–1"),
    ("tagging", "a.conll", "good\tB-x\nbad\n", {}, "line 2 has 1 fields, not 2 (tokens, ner_tags)"),
    ("tagging", "a.conll", "x\tO\n\ny\tB-z\n", {"labels": ["O", "B-x"]},
     "row 2, column ner_tags: 'B-z' is no class; task.labels: O, B-x"),
    ("tagging", "a.conll", "\n \n", {}, "is empty"),
    ("tagging", "a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O"]}\n', {},
     "row 1, column ner_tags: 1 tags for 2 words"),
    ("tagging", "a.tsv", "tokens\tner_tags\na b\tO O\n", {},
     "row 1, column tokens: 'a b' is no list of words"),
    ("question_answering", "a.json", _squad(("good", 13), ("good", 12)), {},
     "row 2, column answers: the answer 'good' is not in the context at character 12"),
    ("question_answering", "a.json", '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', {},
     "is not nested as SQuAD's files are"),
    ("question_answering", "a.jsonl", '{"question": "q", "context": "c", "answers": "c"}\n', {},
     "row 1, column answers: 'c' is no mapping with the lists text and answer_start"),
    ("question_answering", "a.json", '{"data": []}', {}, "is empty"),
    ("extractive_summary", "a.csv", "document,summary\nOne. Two.,One.\nOne.,\n", {},
     "row 2, column summary: the summary has no words"),
    ("extractive_summary", "a.csv", "document,summary\nOne.,One.\n ,One.\n", {},
     "row 2, column document: the document has no sentence"),
    ("extractive_summary", "a.jsonl", '{"document": ["One."], "summary": "..."}\n', {},
     "row 1, column summary: the summary has no words"),
    ("extractive_summary", "a.jsonl", '{"document": ["", " "], "summary": "One"}\n', {},
     "row 1, column document: the document has no sentence"),
    ("extractive_summary", "a.jsonl", '{"document": [], "summary": "One"}\n', {},
     "row 1, column document: the document has no sentence"),
    ("extractive_summary", "a.jsonl", '{"document": null, "summary": "One"}\n', {},
     "row 1, column document: None is neither a text nor a list of sentences"),
    ("extractive_summary", "a.jsonl", '{"document": "One.", "summary": 1}\n', {},
     "row 1, column summary: 1 is no text"),
    ("classification", "a.csv", "text,label\nx,1\ny,0,z\n", {},
     "can't be read: line 3 has 3 fields, where the header has 2"),
    ("classification", "a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"\n', {}, "can't be read"),
    ("classification", "a.csv", "", {}, "is empty"),
    ("classification", "a.csv", "text,label\n", {}, "holds no examples"),
    ("classification", "a.csv", "text,label\nx,-1\n", {}, "labels of this split are hidden"),
    ("regression", "a.csv", "text,label\nx,1\ny,nan\n", {}, "row 2, column label: 'nan' is no n"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "text", "settings", "message"), BAD)
def test_a_message_names_row_and_column(kind, name, text, settings, message, tmp_path):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(SpecError) as error:
        load_split(_task(path, kind, **settings), "train", cache=tmp_path / "cache")
    assert message in str(error.value)
    assert name in str(error.value)


def test_of_lines_that_are_longer_than_the_names_the_rest_is_left_out(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("images\t3.5\ta dog\ta cat\nnews\t0\ta\tb\tlicence\tmore\n")
    task = _task(
        path,
        "regression",
        columns={"text": "one", "pair": "two"},
        column_names=["genre", "label", "one", "two"],
    )
    split = load_split(task, "train", cache=tmp_path / "cache")
    assert (split.text, split.pair, split.label) == (["a dog", "a"], ["a cat", "b"], [3.5, 0.0])


def test_a_missing_column_is_named_before_anything_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(_squad(("good", 13)))
    task = _task(path, "question_answering", columns={"text": "query", "pair": "context"})
    ((key, message),) = check_data(task)[:1]
    assert key == "columns.text"
    assert "has no column 'query'" in message


def test_a_dev_split_has_the_classes_of_train(tmp_path):
    """By name, where they have names: a class that dev lacks does not move the others."""
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("text,label\nx,bad\ny,good\nz,middling\n")
    dev.write_text("text,label\nx,middling\ny,bad\n")
    task = TaskSettings(name="own", train=str(train), dev=str(dev))
    assert load_split(task, "dev", cache=tmp_path / "cache").label == [2, 0]
    dev.write_text("text,label\nx,dreadful\n")
    with pytest.raises(SpecError, match=r"'dreadful' is no class; task\.labels: bad, good"):
        load_split(task, "dev", cache=tmp_path / "cache")


def test_a_teacher_with_other_classes_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,a\ny,b\nz,c\n")
    task = _task(path, "classification")
    teacher = make_classifier(tmp_path / "t", labels=2)
    with pytest.raises(SpecError, match="tells 2 classes apart, the task own has 3"):
        check_labels(load_config(teacher), teacher, task, cache=tmp_path / "cache")
    config = load_config(make_classifier(tmp_path / "u", labels=3))
    config.id2label = {0: "b", 1: "a", 2: "c"}
    with pytest.raises(SpecError, match=r"in another order: b, a, c; set task.labels to \[b, a, c"):
        check_labels(config, "u", task, cache=tmp_path / "cache")
    config.id2label = {0: "a", 1: "b", 2: "c"}
    assert check_labels(config, "u", task, cache=tmp_path / "cache") == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tagging", "metric": "matthews"}, "metric matthews does not go with tagging"),
        ({"kind": "tagging", "augment": 2}, "augment would move what tagging is to find"),
        ({"kind": "extractive_summary", "augment": 2}, "augment would move what extractive_s"),
        ({"kind": "extractive_summary", "labels": ["a"]}, "name two classes"),
        ({"kind": "question_answering", "max_length": 40, "stride": 38}, "leaves no room"),
        ({"kind": "ranking"}, "Input should be"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskSettings(name="own", train="a.csv", dev="b.csv", **settings)
