"""Counts over data, and what is noted of them."""

import csv

import pytest

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import label_names, load_split
from lkd_tune.data.survey import survey, survey_notes
from lkd_tune.models.loading import load_tokenizer
from lkd_tune.records.seed_stats import difference_by_chance
from tests.support.tiny import make_csv, make_teacher

ROWS = [("good film", "a"), ("bad film", "b"), ("good plot", "a"), ("bad plot", "b")]


def facts_of(tmp_path, train, dev, tokenizer=None, **task):
    for name, rows in (("train", train), ("dev", dev)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    settings = TaskSettings(
        name="own", train=str(tmp_path / "train.csv"), dev=str(tmp_path / "dev.csv"), **task
    )
    splits = {split: load_split(settings, split) for split in ("train", "dev")}
    found = survey(settings, splits, label_names(settings), tokenizer)
    return found, survey_notes(settings, found)


def test_what_is_counted(tmp_path):
    train = [*ROWS, ("good film", "a"), ("good film", "b"), (" ", "a")]
    dev = [("bad film", "b"), ("new", "a"), ("new", "a")]
    (first, second), notes = facts_of(tmp_path, train, dev)
    assert (first.rows, first.classes, first.empty) == (7, {"a": 4, "b": 3}, 1)
    assert (first.repeated, first.contradicting, first.in_train) == (2, 1, 0)
    assert (second.repeated, second.contradicting, second.in_train) == (1, 0, 1)
    assert first.cut is None
    text = "\n".join(notes)
    assert "1 of 7 texts are empty" in text
    assert "1 texts occur with different labels" in text
    assert "2 of 7 rows repeat the text of an earlier one" in text
    assert "with 3 rows, differences below 0.36 between two students are mostly chance" in text


def test_sound_data_have_no_notes(tmp_path):
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(500)]
    found, notes = facts_of(tmp_path, rows, [(f"other {text}", label) for text, label in rows])
    assert notes == []
    assert difference_by_chance(found[1].rows) == pytest.approx(0.0277, abs=1e-4)


def test_a_large_class_makes_accuracy_tell_nothing(tmp_path):
    dev = [(f"dev {i}", "b" if i < 50 else "a") for i in range(500)]
    assert "always answering a has accuracy 0.900" in facts_of(tmp_path, ROWS, dev)[1][0]
    assert facts_of(tmp_path, ROWS, dev, metric="macro_f1")[1] == []


def test_cut_texts_are_counted_in_the_teacher_s_tokens(tmp_path):
    tokenizer = load_tokenizer(str(make_teacher(tmp_path / "t")))
    long = [("good " * 20, "a"), *ROWS]  # 22 tokens with the marks of a sentence
    (first, _), notes = facts_of(tmp_path, long, ROWS, tokenizer, max_length=8)
    assert (first.cut, first.whole_at) == (0.2, 22)
    assert "20% of the texts are longer than task.max_length 8 and are cut; with 22" in notes[0]


def test_numbers_and_texts_without_labels_have_no_classes(tmp_path):
    numbers = [(text, str(i / 3)) for i, (text, _) in enumerate(ROWS)]
    (first, _), notes = facts_of(tmp_path, numbers, numbers, kind="regression")
    assert (first.classes, notes) == ({}, [])
    (first, second), _ = facts_of(tmp_path, ROWS, ROWS, kind="masked_lm")
    assert (first.classes, first.contradicting, second.in_train) == ({}, 0, 4)


def test_tags_are_counted_by_sentence(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.conll").write_text("good B-x\nfilm O\n\nbad O\n")
    task = TaskSettings(name="own", kind="tagging", train=str(tmp_path / "train.conll"),
                        dev=str(tmp_path / "dev.conll"), max_length=4)  # fmt: skip
    splits = {split: load_split(task, split) for split in ("train", "dev")}
    tokenizer = load_tokenizer(str(make_teacher(tmp_path / "t")))
    first, second = survey(task, splits, label_names(task), tokenizer)
    assert (first.rows, first.classes, first.cut, second.in_train) == (2, {}, 0.0, 2)


def test_small_data_of_the_tests_can_be_surveyed(tmp_path):
    path = make_csv(tmp_path, 64)
    task = TaskSettings(name="own", train=str(path), dev=str(path))
    (first,) = survey(task, {"train": load_split(task, "train")}, label_names(task))
    assert sum(first.classes.values()) == 64


def test_a_misspelt_label_is_told_from_a_class(tmp_path):
    rows = [(f"text {i}", ("positive", "negative", "class-1")[i % 3]) for i in range(300)]
    rows += [("a", "positve"), ("b", "positve"), ("c", "class-2"), ("d", "sarcastic")]
    dev = [(f"other {text}", label) for text, label in rows] * 2
    notes = [note for note in facts_of(tmp_path, rows, dev)[1] if "misspelling" in note]
    assert len(notes) == 1
    assert "the label positve of 2 rows may be a misspelling of positive" in notes[0]
