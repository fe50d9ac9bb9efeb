"""Local files of every kind, and what is said of those that do not fit."""

import gzip
import json

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.known_tasks import FILE_SUFFIXES, file_types
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import check_data, count_labels, label_names, load_split
from lkd_tune.data.readers import READERS, read_note

ROWS = [("the dog", "a"), ("", "b"), ('a "quoted cat', "a")]


def _task(file, **more):
    return TaskSettings(name="own", train=str(file), dev=str(file), **more)


def _write(folder, suffix):
    path = folder / f"data{suffix}"
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path
    objects = [{"text": text, "label": label} for text, label in ROWS]
    text = {
        ".csv": 'text,label\nthe dog,a\n"",b\n"a ""quoted cat",a\n',
        ".tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS),
        ".json": json.dumps(objects),
        ".jsonl": "".join(json.dumps(row) + "\n" for row in objects),
    }[suffix.removesuffix(".gz")]
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_each_suffix_of_the_settings_has_a_reader_and_is_documented():
    assert tuple(READERS) == FILE_SUFFIXES
    assert f"a local {file_types()} file" in " ".join(
        str(TaskSettings.model_fields["train"].description).split()
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".tsv.gz"])
def test_every_kind_of_file_gives_the_same(tmp_path, suffix):
    task = _task(_write(tmp_path, suffix))
    assert check_data(task) == []
    split = load_split(task, "train", cache=tmp_path / "cache")
    assert split.text == [text for text, _ in ROWS]
    assert split.label == [0, 1, 0]
    assert count_labels(task) == 2


def test_a_file_without_header_takes_the_known_names(tmp_path):
    path = tmp_path / "cola.tsv"
    path.write_text("gj04\t1\t\tThey left.\nks08\t0\t*\tThem left.\n")
    task = TaskSettings(name="cola", train=str(path), dev=str(path))
    split = load_split(task, "dev", cache=tmp_path / "cache")
    assert split.text == ["They left.", "Them left."]
    assert split.label == [1, 0]


def test_words_that_look_like_missing_values_stay(tmp_path):
    """See datasets#4467."""
    path = tmp_path / "data.csv"
    path.write_text("text,label\nNA,0\nNone,1\nnull,0\n")
    assert load_split(_task(path), "train", cache=tmp_path / "c").text == ["NA", "None", "null"]


def test_text_that_looks_like_numbers_stays(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("text,pair,label\n007,1.50,0\n1e3,,1\n")
    task = _task(path, columns={"text": "text", "pair": "pair", "label": "label"})
    split = load_split(task, "train", cache=tmp_path / "c")
    assert (split.text, split.pair, split.label) == (["007", "1e3"], ["1.50", ""], [0, 1])


def test_files_of_other_systems(tmp_path):
    """With a mark of the byte order, and carriage returns at the ends of lines."""
    path = tmp_path / "data.csv"
    path.write_bytes("\ufefftext,label\r\nthe dog,b\r\na cat,a\r\n".encode())
    split = load_split(_task(path), "train", cache=tmp_path / "c")
    assert (split.text, split.label) == (["the dog", "a cat"], [1, 0])
    path = tmp_path / "data.conll"
    path.write_bytes(b"the\tO\r\ndog\tB-x\r\n\r\na\tO\r\n")
    task = _task(path, kind="tagging")
    assert load_split(task, "train", cache=tmp_path / "c").text == [["the", "dog"], ["a"]]
    assert label_names(task, cache=tmp_path / "c") == ["O", "B-x"]


@pytest.mark.parametrize(
    "text",
    [
        "text;label\nthe dog;b\na, cat;a\n",
        "text\tlabel\nthe dog\tb\na, cat\ta\n",
        'text , label\nthe dog,b\n"a, cat",a\n',
        'text,label\nthe dog, b\n"a, cat",a \n',
        '\ntext,label\n\nthe dog,b\n"a, cat",a\n',
        'text,label\nthe dog,b,\n"a, cat",a,\n',
        'id;text;label\n1;the dog;b\n2;"a, cat";a\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_csv_as_spreadsheets_write_it(tmp_path, text, encoding):
    """With other separators, spaces around cells, an empty line first, separators at line ends."""
    path = tmp_path / "data.csv"
    path.write_text(text, encoding)
    task = _task(path)
    assert check_data(task) == []
    split = load_split(task, "train", cache=tmp_path / "c")
    assert (split.text, split.label) == (["the dog", "a, cat"], [1, 0])


def test_a_file_without_header_may_have_another_separator(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("the dog;1\na, cat;0\n")
    task = _task(path, column_names=["text", "label"])
    assert load_split(task, "train", cache=tmp_path / "c").text == ["the dog", "a, cat"]


def test_the_separator_of_a_file_s_suffix_comes_first(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text('text\tlabel\na, cat; "a dog\t1\n')
    assert load_split(_task(path), "train", cache=tmp_path / "c").text == ['a, cat; "a dog']


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-8"])
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".tsv.gz", ".txt"])
def test_an_encoding_that_the_task_names(tmp_path, suffix, encoding):
    path = tmp_path / f"data{suffix}"
    content = {
        ".csv": "text,label\ncafé,1\n",
        ".tsv.gz": "text\tlabel\ncafé\t1\n",
        ".json": '[{"text": "café", "label": 1}]',
        ".jsonl": '{"text": "café", "label": 1}\n',
        ".txt": "café\n",
    }[suffix].encode(encoding)
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    kind = "masked_lm" if suffix == ".txt" else "classification"
    task = _task(path, encoding=encoding, kind=kind)
    assert load_split(task, "train", cache=tmp_path / "c").text == ["café"]


@pytest.mark.parametrize("wrapped", [{"version": "1"}, {"version": "1", "tags": ["a"]}, {}])
def test_rows_of_json_may_be_wrapped(tmp_path, wrapped):
    path = tmp_path / "data.json"
    rows = [{"text": text, "label": label} for text, label in ROWS]
    path.write_text(json.dumps({**wrapped, "data": rows}))
    task = _task(path)
    assert check_data(task) == []
    assert load_split(task, "train", cache=tmp_path / "c").label == [0, 1, 0]


def test_a_list_in_a_row_does_not_wrap_it(tmp_path):
    path = tmp_path / "data.json"  # with an object per line
    path.write_text('{"text": "x", "label": 1, "data": [{"text": "y"}]}\n' * 2)
    assert load_split(_task(path), "train", cache=tmp_path / "c").text == ["x", "x"]


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
-DOCSTART- -X- -X- O
Blackburn NNP I-NP B-PER
"""


@pytest.mark.parametrize(
    ("settings", "tags"),
    [
        ({}, ["O", "B-ORG", "B-PER"]),
        ({"column_names": ["tokens", "pos", "chunk", "ner_tags"]}, ["O", "B-ORG", "B-PER"]),
        (
            {"column_names": ["tokens", "ner_tags", "chunk", "entity"], "metric": "accuracy"},
            ["NNP", "VBZ"],
        ),
    ],
)
def test_conll_files_of_several_columns(tmp_path, settings, tags):
    """A document mark inside a sentence ends it, see flair#2060."""
    path = tmp_path / "data.conll"
    path.write_text(CONLL_2003)
    task = _task(path, kind="tagging", **settings)
    assert check_data(task) == []
    split = load_split(task, "train", cache=tmp_path / "c")
    assert split.text == [["EU", "rejects"], ["Peter"], ["Blackburn"]]
    assert label_names(task, cache=tmp_path / "c") == tags
    said = read_note(task, path)
    assert (said is None) == bool(settings)
    if not settings:
        assert said.startswith("has 4 columns; the first is read as tokens, the last as ner_tags")


def test_numbers_for_regression(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_text("text\tlabel\nx\t2.5\ny\t0\n")
    task = _task(path, kind="regression", metric="spearman")
    assert load_split(task, "train", cache=tmp_path / "c").label == [2.5, 0.0]
    assert count_labels(task) == 1


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("sentence,label\nx,1\n", {}, "no column 'text'; it has sentence, label"),
        ("texts,label\nx,1\n", {}, r"no column 'text' \(did you mean texts\?\)"),
        ("text,label\nx,2\n", {"labels": ["no", "yes"]}, "has the label 2, allowed are 0–1"),
        ("text,label\nx,-1\n", {}, "the labels of this split are hidden"),
        ("text,label\nx,maybe\n", {"labels": ["no", "yes"]}, "task.labels: no, yes"),
        (
            "text,label\nx,high\n",
            {"kind": "regression", "metric": "pearson"},
            "row 1, column label: 'high' is not a number",
        ),
    ],
)
def test_what_is_said_of_unfit_data(tmp_path, text, settings, message):
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        load_split(_task(path, **settings), "train", cache=tmp_path / "cache")


def test_all_missing_files_are_reported_at_once(tmp_path):
    task = TaskSettings(name="own", train=str(tmp_path / "a.csv"), dev=str(tmp_path / "b.csv"))
    assert [key for key, _ in check_data(task)] == ["train", "dev"]
    assert "a.csv is not a file" in check_data(task)[0][1]


def test_hub_data_in_a_local_folder(tmp_path):
    """A folder in hub layout goes the way of a hub name."""
    for split in ("train", "validation"):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / f"{split}.csv").write_text("text,label\ngood,1\nbad,0\n")
    task = TaskSettings(name="own", data=str(tmp_path / "own"), train="train", dev="validation")
    assert load_split(task, "dev").text == ["good", "bad"]


def test_a_hub_that_can_not_be_reached_is_reported_in_one_line(tmp_path):
    task = TaskSettings(name="own", data=str(tmp_path / "none"), train="train", dev="dev")
    with pytest.raises(SpecError, match="can't be loaded from the hub") as caught:
        load_split(task, "train")
    assert "\n" not in str(caught.value)
