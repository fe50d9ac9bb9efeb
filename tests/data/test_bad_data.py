"""What is said of data that a task can't use: which file, row and column."""

import gzip
import json

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import check_data, count_labels, load_split
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.evaluation.scoring import check_labels
from lkd_tune.models.loading import load_config, load_tokenizer
from tests.support.families import make_classifier


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
     "row 2, column label: 'good' is not a class; task.labels: a, b"),
    ("multi_label", "a.tsv", "text\tlabel\nx\t0,2\n", {"labels": ["a", "b"]},
     "row 1, column label: has the label 2, allowed are 0–1"),
    ("tagging", "a.conll", "good\tB-x\nbad\n", {}, "line 2 has 1 fields, not 2 (tokens, ner_tags)"),
    ("tagging", "a.conll", "x\tO\n\ny\tB-z\n", {"labels": ["O", "B-x"]},
     "row 2, column ner_tags: 'B-z' is not a class (did you mean B-x?); task.labels: O, B-x"),
    ("multi_label", "a.jsonl", '{"text": "x", "label": ["a", null]}\n', {},
     "row 1, column label: has no label"),
    ("multi_label", "a.tsv", "text\tlabel\nx\t\n", {}, "column label: holds no label"),
    ("tagging", "a.conll", "\n \n", {}, "is empty"),
    ("tagging", "a.jsonl", '{"tokens": ["a"], "ner_tags": null}\n', {},
     "row 1, column ner_tags: None is not a list of tags"),
    ("tagging", "a.jsonl", '{"tokens": ["a"], "ner_tags": null}\n', {"labels": ["O"]},
     "row 1, column ner_tags: None is not a list of tags"),
    ("tagging", "a.jsonl", '{"tokens": ["a", null], "ner_tags": ["O", "O"]}\n', {},
     "row 1, column tokens: None is not a word"),
    ("tagging", "a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O", null]}\n', {},
     "row 1, column ner_tags: has no label"),
    ("tagging", "a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O"]}\n', {},
     "row 1, column ner_tags: 1 tags for 2 words"),
    ("tagging", "a.tsv", "tokens\tner_tags\na b\tO O\n", {},
     "row 1, column tokens: 'a b' is not a list of words"),
    ("question_answering", "a.json", _squad(("good", 13), ("good", 12)), {},
     "row 2, column answers: the answer 'good' is not in the context at character 12"),
    ("question_answering", "a.json", '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', {},
     "is not nested as SQuAD's files are"),
    ("question_answering", "a.jsonl", '{"question": "q", "context": "c", "answers": "c"}\n', {},
     "row 1, column answers: 'c' has no lists text and answer_start of equal length"),
    ("question_answering", "a.jsonl",
     '{"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": [0, 1]}}\n', {},
     "row 1, column answers: {'text': ['c'], 'answer_start': [0, 1]} has no lists text and answer"),
    ("question_answering", "a.jsonl",
     '{"question": "q", "context": "c", "answers": {"text": [3], "answer_start": [0]}}\n', {},
     "row 1, column answers: the answer 3 is not in the context at character 0"),
    ("question_answering", "a.jsonl",
     '{"question": "q", "context": "ab", "answers": {"text": ["a"], "answer_start": [-2]}}\n', {},
     "row 1, column answers: the answer 'a' is not in the context at character -2"),
    ("question_answering", "a.json", '{"data": [{"paragraphs": [{"context": "", "qas": ["x"]}]}]}',
     {}, "is not nested as SQuAD's files are"),
    ("question_answering", "a.json", '{"data": []}', {}, "is empty"),
    ("masked_lm", "a.txt", "\n \n", {}, "column text: holds no text"),
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
     "row 1, column summary: 1 is not a text"),
    ("classification", "a.csv", "text,label\nx,1\ny,0,z\n", {},
     "can't be read: line 3 has 3 fields, where the header has 2"),
    ("classification", "a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"\n', {}, "can't be read"),
    ("classification", "a.csv", "text,label\na, b,1\nc, d,0\n", {},
     "can't be read: line 2 has 3 fields, where the header has 2; put text that holds the"),
    ("classification", "a.jsonl", '{"text": "x", "label": 1}\n' * 3000 + '{"text": "y"\n', {},
     "can't be read: line 3001 is not JSON: Expecting ',' delimiter"),
    ("classification", "a.jsonl", '{"text": "x", "label": 1}\n7\n', {},
     "can't be read: line 2 is not an object"),
    ("classification", "a.csv", "text,label,label\nx,0,1\n", {},
     "a.csv has 2 columns named label; rename all but one"),
    ("classification", "a.csv", "text , label,label \nx,0,1\n", {},
     "a.csv has 2 columns named label; rename all but one"),
    ("classification", "a.csv", "Text,a b, \nx,0,1\n", {}, "it has Text, a b, ''"),
    ("classification", "a.json", '{"a": [{"text": "x"}], "b": [{"text": "x"}]}', {},
     "it has several lists, a, b; keep the one that holds the examples"),
    ("tagging", "a.conll", "EU NNP B-NP B-ORG\nrejects VBZ O\n", {},
     "line 2 has 3 fields, where the first line with a word has 4"),
    ("classification", "a.csv", "", {}, "is empty"),
    ("classification", "a.csv", "text,label\n", {}, "holds no examples"),
    ("classification", "a.csv", "text,label\nx,-1\n", {}, "labels of this split are hidden"),
    ("classification", "a.csv", "text,label\nx,0\ny,\n", {}, "row 2, column label: has no label"),
    ("classification", "a.csv", "text,label\nx,0\ny\n", {}, "row 2, column label: has no label"),
    ("classification", "a.csv", "text,label\nx,a\ny, \n", {"labels": ["a"]},
     "row 2, column label: has no label"),
    ("classification", "a.csv", "text,label\n" + "x,0\n" * 10001 + "y,\n", {},
     "row 10002, column label: has no label"),  # a further block of the reader's
    ("classification", "a.jsonl", '{"text": "x", "label": "a"}\n{"text": "x", "label": null}\n', {},
     "row 2, column label: has no label"),
    ("classification", "a.jsonl", '{"text": "x", "label": "a"}\n{"text": "x", "label": 1}\n', {},
     "row 2, column label: 1 is not a class: use ids for all rows, or names for all"),
    ("classification", "a.csv", "text,label\nx,3.8\ny,1.2\n", {},
     "row 1, column label: '3.8' is not a class; use ids or names; for numbers set task.kind to"),
    ("classification", "a.jsonl", '{"text": "x", "label": 0.5}\n', {"labels": ["a", "b"]},
     "row 1, column label: 0.5 is not a class; task.labels: a, b"),
    ("classification", "a.csv", "text,label\nx,20261121\n", {}, "has the label 20261121, allowed"),
    ("classification", "a.csv", "text,label\nx,0\n", {"labels": ["1", "2"]},
     "row 1, column label: '0' is not a class; task.labels: 1, 2"),
    ("classification", "a.csv.gz", "text,label\nx,0\n", {}, "can't be read: Not a gzipped file"),
    ("regression", "a.csv", "text,label\nx,1\ny,nan\n", {}, "row 2, column label: 'nan' is not a"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "text", "settings", "message"), BAD)
def test_a_message_names_row_and_column(kind, name, text, settings, message, tmp_path):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(SpecError) as error:
        load_split(_task(path, kind, **settings), "train", cache=tmp_path / "cache")
    assert message in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "line 2 is not UTF-8 (byte 0xe9); save it as UTF-8, or set task.encoding: cp1252"),
        ({"encoding": "ascii"}, "line 2 is not ASCII (byte 0xe9); correct task.encoding"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv.gz"])
def test_a_file_of_another_encoding_is_reported_with_its_line(name, settings, message, tmp_path):
    rows = {
        "a.csv": "text,label\ncafé,1\n",
        "a.tsv.gz": "text\tlabel\ncafé\t1\n",
        "a.jsonl": '{"text": "the", "label": 0}\n{"text": "café", "label": 1}\n',
    }[name].encode("cp1252")
    path = tmp_path / name
    path.write_bytes(gzip.compress(rows) if name.endswith(".gz") else rows)
    with pytest.raises(SpecError) as error:
        load_split(_task(path, "classification", **settings), "train", cache=tmp_path / "cache")
    assert message in str(error.value)


def test_text_of_nul_bytes_is_taken_for_utf_16(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nx,1\n".encode("utf-16-le"))
    ((_, message), *_) = check_data(_task(path, "classification"))
    assert "holds NUL bytes" in message
    assert "set task.encoding to utf-16-le" in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "text,label\nx,1\ny,0,z\n"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"\n'),
    ],
)
def test_a_broken_file_is_reported_once(name, text, tmp_path, capfd, caplog):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SpecError):
        load_split(_task(path, "classification"), "train", cache=tmp_path / "cache")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("longer", [0, 1])  # it may be the first line, which could be a header
def test_of_lines_that_are_longer_than_the_names_the_rest_is_left_out(longer, tmp_path):
    path = tmp_path / "a.tsv"
    lines = ["images\t3.5\ta dog\ta cat", "news\t0\ta\tb"]
    lines[longer] += "\tlicence\tmore"
    path.write_text("\n".join(lines) + "\n")
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
    with pytest.raises(SpecError, match=r"'dreadful' is not a class; task\.labels: bad, good"):
        load_split(task, "dev", cache=tmp_path / "cache")


def test_misspelt_labels_are_counted(tmp_path):
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("text,label\nx,bad\ny,good\n")
    dev.write_text("text,label\nx,bad\ny,goood\nz,good\nv,goood\nw,bed\n")
    task = TaskSettings(name="own", train=str(train), dev=str(dev))
    message = (
        r"row 2, column label: 'goood' is not a class \(did you mean good\?\); "
        r"task\.labels: bad, good \(2 more rows can't be read\)"
    )
    with pytest.raises(SpecError, match=message):
        load_split(task, "dev", cache=tmp_path / "cache")


def test_long_documents_and_open_quotation_marks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{'x ' * 100_000},1\ny,0\n")
    task = TaskSettings(name="own", train=str(path), dev=str(path))
    assert len(load_split(task, "dev", cache=tmp_path / "cache").text[0]) == 200_000
    path.write_text('text,label\nx,0\n"y,1\nz,0\n')
    with pytest.raises(SpecError, match="line 3 opens a quotation mark that nothing closes"):
        load_split(task, "dev", cache=tmp_path / "cache")


def test_ids_of_dev_are_those_of_train(tmp_path):
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("text,label\nx,1.0\ny,0\n")
    dev.write_text("text,label\nx,0\n")
    task = TaskSettings(name="own", train=str(train), dev=str(dev))
    assert load_split(task, "train", cache=tmp_path / "cache").label == [1, 0]
    assert count_labels(task, cache=tmp_path / "cache") == 2
    dev.write_text("text,label\nx,0\ny,2\n")
    with pytest.raises(SpecError, match=r"dev.csv, row 2, column label: has the label 2, .* 0–1"):
        load_split(task, "dev", cache=tmp_path / "cache")


def test_tags_of_dev_are_those_of_train(tmp_path):
    train, dev = tmp_path / "train.conll", tmp_path / "dev.conll"
    train.write_text("x 0\ny 1\n")
    dev.write_text("x 2\n")
    task = TaskSettings(name="own", kind="tagging", train=str(train), dev=str(dev))
    with pytest.raises(SpecError, match=r"dev.conll, row 1, .* has the label 2, allowed are 0–1"):
        load_split(task, "dev", cache=tmp_path / "cache")


def test_a_split_without_the_last_of_several_classes_is_as_wide_as_the_others(tmp_path):
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    train.write_text("text\tlabel\nthe dog\t0,2\nthe cat\t1\n")
    dev.write_text("text\tlabel\nthe dog\t0\nthe cat\t1\n")
    task = TaskSettings(name="own", kind="multi_label", train=str(train), dev=str(dev))
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t"))
    tokens = load_tokens(task, "dev", tokenizer, cache=tmp_path / "cache")
    assert tokens.labels.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_numbers_that_are_names_are_no_ids(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,1\ny,3\n")
    task = _task(path, "classification", labels=["1", "2", "3"])
    assert load_split(task, "train", cache=tmp_path / "cache").label == [0, 2]


def test_a_teacher_with_other_classes_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,a\ny,b\nz,c\n")
    task = _task(path, "classification")
    teacher = make_classifier(tmp_path / "t", labels=2)
    with pytest.raises(SpecError, match="has 2 classes, the task own has 3"):
        check_labels(load_config(teacher), teacher, task, cache=tmp_path / "cache")
    config = load_config(make_classifier(tmp_path / "u", labels=3))
    config.id2label = {0: "b", 1: "a", 2: "c"}
    with pytest.raises(SpecError, match=r"in another order: b, a, c; set task.labels to \[b, a, c"):
        check_labels(config, "u", task, cache=tmp_path / "cache")
    config.id2label = {0: "x", 1: "y", 2: "z"}
    with pytest.raises(SpecError, match="other classes than the task, which has a, b, c: x, y, z"):
        check_labels(config, "u", task, cache=tmp_path / "cache")
    for names in ("abc", "ABC", ("LABEL_0", "LABEL_1", "LABEL_2"), "012"):
        config.id2label = dict(enumerate(names))
        assert check_labels(config, "u", task, cache=tmp_path / "cache") == 3


def test_classes_in_another_order_are_reported_whatever_their_case(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("premise,hypothesis,label\nx,y,0\n")
    config = load_config(make_classifier(tmp_path / "t", labels=3))
    config.id2label = dict(enumerate(["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]))
    task = TaskSettings(name="mnli", train=str(path), dev=str(path))
    with pytest.raises(SpecError, match="in another order: CONTRADICTION, NEUTRAL, ENTAILMENT"):
        check_labels(config, "t", task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tagging", "metric": "matthews"}, "metric matthews can't be used for tagging"),
        ({"kind": "tagging", "augment": 2}, "augment can't be used for tagging"),
        ({"kind": "extractive_summary", "augment": 2}, "augment can't be used for extractive_s"),
        ({"kind": "extractive_summary", "labels": ["a"]}, "name two classes"),
        ({"kind": "question_answering", "max_length": 40, "stride": 38}, "leaves no room"),
        ({"kind": "question_answering", "columns": {"pair": None}}, "columns.pair is required"),
        ({"kind": "ranking"}, "Input should be"),
        ({"encoding": "windows"}, "encoding 'windows' is unknown; use utf-8, utf-16, cp1252"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskSettings(name="own", train="a.csv", dev="b.csv", **settings)
