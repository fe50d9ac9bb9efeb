"""Space files drafted from data: what is guessed, what is written, and that it can be used."""

import json
from pathlib import Path

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import load_space
from lkd_tune.data.loading import label_names, load_split
from lkd_tune.drafts.draft import Request, draft_path, write_draft
from tests.support.tiny import BAD, FILLERS, GOOD, make_csv, make_teacher

TEXTS = [
    f"the {word} story was {kind}"
    for word in ("old", "new", "long", "short")
    for kind in (*GOOD, *BAD)
]


def draft(tmp_path, train, **known):
    """Returns the settings of a draft, its text and what was told; its data can be loaded."""
    to = tmp_path / "drafted.yaml"
    told = write_draft(Request(train, **known), to)
    settings = load_space(to).settings
    for split in ("train", "dev"):
        assert load_split(settings.task, split).text
    return settings, to.read_text(), "\n".join(told)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def labelled(labels):
    return [{"id": i, "body": text, "stars": labels(i)} for i, text in enumerate(TEXTS)]


def test_a_text_and_a_class(tmp_path):
    train = write_rows(tmp_path / "train.jsonl", labelled(lambda i: ("bad", "good")[i % 2]))
    write_rows(tmp_path / "valid.jsonl", labelled(lambda i: ("bad", "good")[i % 2]))
    settings, text, told = draft(tmp_path, train)
    task = settings.task
    assert (task.kind, task.metric) == ("classification", "accuracy")
    assert (task.columns.text, task.columns.label) == ("body", "stars")
    assert task.dev == str(tmp_path / "valid.jsonl")
    assert task.max_length == 32
    assert "kind: classification # guessed: 2 different labels: bad, good" in text
    assert "metric: accuracy # guessed: the largest class has 50% of the rows" in text
    assert "label: column stars (by its name)" in told
    # Without a teacher one of the script is proposed, and fine-tuned first.
    assert settings.teacher.train.model == "bert-base-uncased"
    assert settings.student.vocab == "trim"
    assert settings.resources.gpus == 0


def test_a_teacher_of_the_task_is_the_teacher(tmp_path):
    train = make_csv(tmp_path, 64)
    teacher = str(make_teacher(tmp_path / "t"))
    settings, text, _ = draft(tmp_path, train, dev=make_csv(tmp_path, 64, name="dev"),
                              teacher=teacher, gpus=True)  # fmt: skip
    assert settings.teacher.model == teacher
    assert "it has a head for classification" in text
    assert settings.task.max_length == 32  # all that the teacher takes
    assert settings.resources.gpus == 1


def test_a_teacher_with_another_head_is_fine_tuned(tmp_path):
    teacher = make_teacher(tmp_path / "t")
    train = write_rows(tmp_path / "train.jsonl", labelled(lambda i: "abc"[i % 3]))
    settings, text, _ = draft(tmp_path, train, dev=train, teacher=str(teacher))
    assert settings.teacher.train.model == str(teacher)
    assert "its head has 2 outputs, the data have 3 classes" in text


def test_classes_are_in_the_order_of_the_teacher(tmp_path):
    teacher = make_teacher(tmp_path / "t")
    config = json.loads((teacher / "config.json").read_text())
    names = {"0": "Positive", "1": "Negative"}
    (teacher / "config.json").write_text(json.dumps({**config, "id2label": names}))
    train = write_rows(
        tmp_path / "train.jsonl", labelled(lambda i: ("negative", "positive")[i % 2])
    )
    settings, text, _ = draft(tmp_path, train, dev=train, teacher=str(teacher))
    assert settings.task.labels == ["positive", "negative"]
    assert "in the teacher's order" in text


@pytest.mark.parametrize(
    ("labels", "kind", "metric"),
    [
        (lambda i: i / 7, "regression", "spearman"),
        (lambda i: i, "regression", "spearman"),
        (lambda i: i % 3, "classification", "accuracy"),
        (lambda i: int(i == 3), "classification", "macro_f1"),
        (lambda i: [("a", "b")[i % 2], "c"], "multi_label", "macro_f1"),
        (lambda i: ("a, b", "b, c", "a, c", "a")[i % 4], "multi_label", "macro_f1"),
    ],
)
def test_kinds_by_their_labels(tmp_path, labels, kind, metric):
    train = write_rows(tmp_path / "train.jsonl", labelled(labels))
    settings, _, _ = draft(tmp_path, train, dev=train)
    assert (settings.task.kind, settings.task.metric) == (kind, metric)


def test_a_pair(tmp_path):
    rows = [{"premise": a, "hypothesis": a, "label": "no"} for a in TEXTS] + [
        {"premise": a, "hypothesis": "it was", "label": "yes"} for a in TEXTS
    ]
    settings, _, told = draft(tmp_path, write_rows(tmp_path / "train.jsonl", rows), dev=None)
    columns = settings.task.columns
    assert (columns.text, columns.pair, columns.label) == ("premise", "hypothesis", "label")
    assert "its name goes with premise" in told


def test_tags_answers_summaries_and_text_alone(tmp_path):
    tagged = [{"tokens": text.split(), "ner_tags": ["O"] * 5} for text in TEXTS]
    tagged[0]["ner_tags"][1] = "B-x"
    train = write_rows(tmp_path / "train.jsonl", tagged)
    assert draft(tmp_path, train, dev=train)[0].task.kind == "tagging"
    (tmp_path / "drafted.yaml").unlink()

    answer = {"text": ["story"], "answer_start": [8]}
    asked = [
        {"question": "what was it?", "context": f"the old story {text}", "answers": answer}
        for text in TEXTS
    ]
    train = write_rows(tmp_path / "train.jsonl", asked)
    assert draft(tmp_path, train, dev=train)[0].task.kind == "question_answering"
    (tmp_path / "drafted.yaml").unlink()

    long = [" ".join(FILLERS) + f" {text}." for text in TEXTS]
    summed = [{"document": f"{a} {a} Other. {a}", "summary": a} for a in long]
    train = write_rows(tmp_path / "train.jsonl", summed)
    assert draft(tmp_path, train, dev=train)[0].task.kind == "extractive_summary"
    (tmp_path / "drafted.yaml").unlink()

    train = tmp_path / "train.txt"
    train.write_text("\n".join(TEXTS) + "\n")
    settings, text, _ = draft(tmp_path, train, dev=train)
    assert (settings.task.kind, settings.teacher.model) == ("masked_lm", "bert-base-uncased")
    assert "there is no label" in text


def test_delimited_files_as_they_come(tmp_path):
    rows = [f'{("bad", "good")[i % 2]};"{text}; really"' for i, text in enumerate(TEXTS)]
    train = tmp_path / "train.csv"
    train.write_text("verdict;remark\n" + "\n".join(rows) + "\n")
    columns = draft(tmp_path, train, dev=train)[0].task.columns
    assert (columns.text, columns.label) == ("remark", "verdict")
    (tmp_path / "drafted.yaml").unlink()

    train = tmp_path / "train.tsv"
    train.write_text("".join(f"{text}\t{i % 2 + 1}\n" for i, text in enumerate(TEXTS)))
    settings, text, _ = draft(tmp_path, train, dev=train)
    assert settings.task.column_names == ["column1", "column2"]
    assert "the file has no header" in text
    # Stars 1 and 2 would otherwise be the classes 1 and 2 of three.
    assert label_names(settings.task) == ["1", "2"]


def test_other_scripts_get_a_teacher_that_knows_them(tmp_path):
    rows = [{"text": f"정말 재미있는 영화 {i}", "label": i % 2} for i in range(40)]
    train = write_rows(tmp_path / "train.jsonl", rows)
    settings, text, _ = draft(tmp_path, train, dev=train)
    assert settings.teacher.train.model == "bert-base-multilingual-cased"
    assert "of the smallest student would be embeddings" in text


def test_without_a_dev_file_rows_are_held_out(tmp_path):
    rows = labelled(lambda i: i % 2) * 2  # each text twice
    settings, _, told = draft(tmp_path, write_rows(tmp_path / "all.jsonl", rows))
    parts = [load_split(settings.task, split).text for split in ("train", "dev")]
    assert {*parts[0]}.isdisjoint(parts[1])
    assert sum(map(len, parts)) == len(rows)
    assert 5 <= len(parts[1]) <= 35
    assert "no dev file was found" in told
    assert str(tmp_path / "drafted-dev.jsonl") in told


def test_columns_may_be_named(tmp_path):
    rows = [
        {"title": text, "text": text * 3, "a": i % 2, "b": i % 3} for i, text in enumerate(TEXTS)
    ]
    train = write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(SpecError, match="none of the columns title, a, b looks like a label"):
        draft(tmp_path, train, dev=train)
    columns = draft(tmp_path, train, dev=train, text="title", label="b")[0].task.columns
    assert (columns.text, columns.label) == ("title", "b")
    with pytest.raises(SpecError, match=r"--label: .* has no column 'bb' \(did you mean b\?\)"):
        write_draft(Request(train, label="bb"), tmp_path / "other.yaml")


def test_bad_input(tmp_path):
    train = make_csv(tmp_path, 8)
    to = tmp_path / "new.yaml"
    with pytest.raises(SpecError, match=r"none.csv: is not a file"):
        write_draft(Request(tmp_path / "none.csv"), to)
    with pytest.raises(SpecError, match=r"--teacher: .*none"):
        write_draft(Request(train, teacher=str(tmp_path / "none")), to)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(SpecError, match=r"empty.csv: holds no examples"):
        write_draft(Request(tmp_path / "empty.csv"), to)
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(SpecError, match="is not a csv, tsv"):
        write_draft(Request(tmp_path / "notes.docx"), to)
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n')
    with pytest.raises(SpecError, match=r"broken.jsonl: can't be read: line 2 is not JSON"):
        write_draft(Request(tmp_path / "broken.jsonl"), to)
    other = write_rows(tmp_path / "other.jsonl", [{"words": "a b"}])
    with pytest.raises(SpecError, match=r"--dev: .* has no column text, label"):
        write_draft(Request(train, dev=other), to)
    assert not to.exists()
    to.write_text("mine")
    with pytest.raises(SpecError, match="exists; name another file with --to"):
        write_draft(Request(train), to)
    assert to.read_text() == "mine"


@pytest.mark.parametrize(
    "train",
    ["reviews_train.csv", "data/reviews/train.jsonl", "reviews.csv.gz", "reviews-train.txt"],
)
def test_the_file_has_the_name_of_the_data(train):
    assert str(draft_path(Path(train))) == "reviews.yaml"
