"""Text without labels: which rows are used, in every format, and how they become examples."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings, Unlabelled
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.data.loading import check_data, count_labels, label_names
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import TRAINING, load_tokens
from lkd_tune.data.training_text import load_training_text
from lkd_tune.data.types import IGNORED, UNLABELLED
from lkd_tune.models.from_scratch import build_word_tokenizer
from tests.support.kinds_data import make_task
from tests.support.tiny import BAD, FILLERS, GOOD

CPU = torch.device("cpu")
WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]


def _tokenizer() -> Any:
    return build_word_tokenizer(WORDS, 32)


def _csv(path: Path, *rows: str) -> str:
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return str(path)


def _task(folder: Path, **settings: Any) -> TaskSettings:
    train = _csv(folder / "train.csv", "text,label", "a b,0", "c d,1")
    dev = _csv(folder / "dev.csv", "text,label", "e f,0", "g h,1")
    more = {"name": "own", "train": train, "dev": dev, "max_length": 8}
    return TaskSettings.model_validate(more | settings)


def _lines(folder: Path, *lines: str) -> str:
    return _csv(folder / "more.txt", *lines)


def test_rows_of_other_splits_and_repeated_ones_are_left_out_and_counted(tmp_path):
    lines = ["a c", "E  f", "", "a b", "a c", "A C", "h", "g  h"]
    test = _csv(tmp_path / "test.csv", "text,label", "h,0")
    task = _task(tmp_path, test=test, unlabelled=_lines(tmp_path, *lines, "b b"))
    found = load_training_text(task)
    assert found.split.text == ["a b", "c d", "a c", "b b"]
    assert found.split.label == [0, 1, None, None]
    assert (found.labelled, found.unlabelled, found.rows) == (2, 2, [0, 8])
    assert found.left_out == {"in dev": 2, "empty": 1, "in train": 1, "repeated": 2, "in test": 1}
    assert found.note == (
        f"{tmp_path}/more.txt: 2 texts without labels are added to 2 with labels; left out are "
        "2 in dev, 1 empty, 1 in train, 2 repeated, 1 in test"
    )


def test_without_labelled_text_the_classes_are_those_of_dev(tmp_path):
    task = _task(tmp_path, train=None, unlabelled=_lines(tmp_path, "a b", "c"))
    assert label_names(task) == ["LABEL_0", "LABEL_1"]
    found = load_training_text(task)
    assert (found.split.text, found.labelled) == (["a b", "c"], 0)
    assert found.note == f"{tmp_path}/more.txt: 2 texts without labels"
    tokens = load_tokens(task, TRAINING, _tokenizer())
    assert not tokens.labelled.any()


def test_the_examples_without_labels_follow_those_with(tmp_path):
    task = _task(tmp_path, unlabelled=_lines(tmp_path, "a c", "b b b"))
    tokens = load_tokens(task, TRAINING, _tokenizer())
    assert tokens.labelled.tolist() == [True, True, False, False]
    assert tokens.labels.tolist() == [0, 1, UNLABELLED, UNLABELLED]
    plain = load_tokens(task, "train", _tokenizer())
    assert np.array_equal(tokens.ids[: len(plain.ids)], plain.ids)
    assert plain.labelled.all()


def test_the_cache_knows_the_unlabelled_text_and_what_is_left_out_of_it(tmp_path):
    def key(**settings: Any) -> str:
        return load_tokens(_task(tmp_path, **settings), TRAINING, _tokenizer()).key

    file = _lines(tmp_path, "a c", "b b")
    first = key(unlabelled=file)
    assert key(unlabelled=file) == first
    assert key(unlabelled={"split": file, "examples": 1}) != first
    test = _csv(tmp_path / "test.csv", "text,label", "b b,0")
    assert key(unlabelled=file, test=test) != first
    _lines(tmp_path, "a c", "b c")
    assert key(unlabelled=file) != first
    # What a search without such text has in its cache stays valid.
    tasks = _task(tmp_path), _task(tmp_path, unlabelled=file)
    assert len({load_tokens(task, "train", _tokenizer()).key for task in tasks}) == 1


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))


def _write_gz(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt") as file:
        file.write("\n".join(row["text"] for row in rows))


WRITERS = {
    "more.csv": _write_csv,
    "more.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "more.jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows))),
    "more.parquet": lambda path, rows: Dataset.from_list(rows).to_parquet(path),
    "more.txt.gz": _write_gz,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_needs_the_text_alone(tmp_path, name):
    WRITERS[name](tmp_path / name, [{"text": "a c"}, {"text": "b b"}])
    task = _task(tmp_path, unlabelled=str(tmp_path / name))
    assert check_data(task) == []
    assert load_training_text(task).split.text[2:] == ["a c", "b b"]


def test_a_data_set_in_hub_layout_with_columns_of_its_own(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    rows = [{"review": text, "stars": 1} for text in ("a c", "b b", "d d", "h h")]
    Dataset.from_list(rows).to_parquet(folder / "train-00000-of-00001.parquet")
    more = {"split": "train", "data": str(folder), "text": "review", "examples": 3}
    task = _task(tmp_path, unlabelled=more)
    assert load_training_text(task).split.text[2:] == ["a c", "b b", "d d"]  # streamed
    sliced = _task(tmp_path, unlabelled={**more, "split": "train[2:]", "examples": None})
    assert load_training_text(sliced).split.text[2:] == ["d d", "h h"]


def test_pairs(tmp_path):
    both = {"columns": {"text": "one", "pair": "two", "label": "label"}}
    train = _csv(tmp_path / "p.csv", "one,two,label", "a,b,0", "b,c,1")
    more = _csv(tmp_path / "more.csv", "one,two", "a,b", "a,c", "e,f")
    dev = _csv(tmp_path / "d.csv", "one,two,label", "e,f,1", "g,g,0")
    task = _task(tmp_path, train=train, dev=dev, unlabelled=more, **both)
    found = load_training_text(task)
    assert (found.split.text, found.split.pair) == (["a", "b", "a"], ["b", "c", "c"])
    tokens = load_tokens(task, TRAINING, _tokenizer())
    assert tokens.types[tokens.starts[2] : tokens.starts[3]].tolist() == [0, 0, 0, 1, 1]


def test_known_columns_of_a_known_task_s_own_files(tmp_path):
    data = _csv(tmp_path / "t.tsv", "sentence\tlabel", "a b\t0", "c d\t1")
    dev = _csv(tmp_path / "d.tsv", "sentence\tlabel", "e\t0", "f\t1")
    more = _csv(tmp_path / "more.tsv", "sentence", "a c")
    known = {"name": "sst2", "train": data, "dev": dev}
    task = TaskSettings.model_validate({**known, "unlabelled": more})
    assert load_training_text(task).split.text[2:] == ["a c"]
    lines = TaskSettings.model_validate({**known, "unlabelled": _lines(tmp_path, "b c")})
    assert load_training_text(lines).split.text[2:] == ["b c"]
    without = TaskSettings.model_validate({**known, "train": None, "unlabelled": more})
    assert (without.data, without.train) == (None, None)
    assert load_training_text(without).split.text == ["a c"]


def _of_kind(folder: Path, kind: str) -> TaskSettings:
    """Returns a task with 8 labelled rows, and 8 others whose labels are not read."""
    folder.mkdir()
    task, more = (make_task(folder / str(rows), kind, rows) for rows in (8, 16))
    return task.model_copy(update={"unlabelled": Unlabelled(split=str(more.train))})


@pytest.mark.parametrize("kind", [name for name, info in KINDS.items() if info.needs_label is None])
def test_the_loss_against_labels_is_that_of_the_labelled_rows_alone(tmp_path, kind):
    task = _of_kind(tmp_path / "data", kind)
    assert load_training_text(task).left_out == {"in train": 8}
    own = build_word_tokenizer(sorted({*GOOD, *BAD, *FILLERS}), 32)
    tokens, kind = load_tokens(task, TRAINING, own), kind_of(task)
    assert tokens.labelled.tolist() == [True] * 8 + [False] * (len(tokens) - 8)
    torch.manual_seed(0)

    def loss_of(examples: np.ndarray) -> tuple[Any, torch.Tensor, torch.Tensor]:
        batch = tokens.batch(examples, CPU)
        shape = (*batch.mask.shape, width) if kind.per_token else (len(examples), width)
        logits = every[: shape[0], : shape[1]] if kind.per_token else every[: shape[0]]
        logits = logits.clone().requires_grad_()
        loss = kind.hard_label_loss(kind.loss_rows(logits, batch), kind.loss_labels(batch))
        loss.backward()
        return batch, loss, logits.grad

    width = 2 if kind.name == "question_answering" else count_labels(task)
    every = torch.randn((len(tokens), 32, width) if kind.per_token else (len(tokens), width))
    both, loss, gradient = loss_of(np.arange(len(tokens)))
    alone, expected, own_gradient = loss_of(np.arange(8))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() > 0
    assert not gradient[8:].any()  # and so not NaN
    narrow = own_gradient.shape[1]
    assert torch.allclose(gradient[:8, :narrow], own_gradient, atol=1e-6)
    assert kind.count_labelled_rows(both) == kind.count_labelled_rows(alone)
    assert kind.count_labelled_rows(alone) == kind.count_loss_rows(alone)
    assert kind.count_loss_rows(both) > kind.count_loss_rows(alone)


def test_words_that_no_loss_compares_are_no_rows_without_a_label(tmp_path):
    task = _of_kind(tmp_path / "data", "tagging")
    tokenizer = build_word_tokenizer([*"goodfilmthesatryvyplbu"], 32)  # several tokens a word
    labels = load_tokens(task, TRAINING, tokenizer).labels
    assert {IGNORED, UNLABELLED} < {*labels.tolist()}


def test_conll_files_without_tags(tmp_path):
    task = _of_kind(tmp_path / "data", "tagging")
    (tmp_path / "words.conll").write_text("the\nfilm\n\nso\n")
    found = task.model_copy(update={"unlabelled": Unlabelled(split=str(tmp_path / "words.conll"))})
    assert check_data(found) == []
    assert load_training_text(found).split.text[8:] == [["the", "film"], ["so"]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "masked_lm"}, "unlabelled can't be used for masked_lm: its text has no labels"),
        ({"kind": "extractive_summary"}, "unlabelled can't be used for extractive_summary: the su"),
        ({"unlabelled": "train"}, "'train' is not a csv, tsv, txt"),
        ({"train": None, "dev": None}, "task.dev is required"),
        ({"train": None, "unlabelled": None}, "task.train is required"),
        ({"unlabelled": {"split": "m.txt", "examples": 0}}, "greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    files = {"name": "own", "train": "t.csv", "dev": "d.csv", "unlabelled": "m.txt"}
    with pytest.raises(ValidationError, match=said):
        TaskSettings.model_validate(files | settings)


def test_bad_files_are_named(tmp_path):
    task = _task(tmp_path, unlabelled=str(tmp_path / "no.txt"))
    ((key, said),) = check_data(task)
    assert key == "unlabelled"
    assert said.startswith(f"{tmp_path}/no.txt is not a file")
    other = _csv(tmp_path / "other.csv", "review", "a")
    ((key, said),) = check_data(_task(tmp_path, unlabelled=other))
    assert (key, said) == ("unlabelled", f"{other} has no column 'text'; it has review")
    empty = _csv(tmp_path / "empty.csv", "text")
    with pytest.raises(SpecError, match=rf"^task\.unlabelled: {empty} holds no examples"):
        load_training_text(_task(tmp_path, unlabelled=empty))
    none = _lines(tmp_path, "e f", "", "a b")
    said = (
        r"more\.txt has no usable row \(1 in dev, 1 empty, 1 in train\); leave task.unlabelled out"
    )
    with pytest.raises(SpecError, match=rf"^task\.unlabelled: .*{said}"):
        load_training_text(_task(tmp_path, unlabelled=none))
    hub = {"split": "train", "data": str(tmp_path / "nowhere")}
    with pytest.raises(SpecError, match=r"^task\.unlabelled: .*nowhere.* can't be loaded"):
        load_training_text(_task(tmp_path, unlabelled=hub))
