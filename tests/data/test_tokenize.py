"""Tokenised splits and the order of batches."""

import numpy as np
import torch

from lkd_tune.config.settings.task import Columns, TaskSettings
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.models.loading import load_tokenizer
from tests.support.families import make_classifier, make_csv


def _task(tmp_path, **more):
    file = make_csv(tmp_path)
    return TaskSettings(name="own", train=file, dev=file, columns=Columns(), **more)


def test_tokens_are_those_of_the_tokenizer_and_are_made_once(tmp_path):
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t"))
    task = _task(tmp_path)
    tokens = load_tokens(task, "train", tokenizer, cache=tmp_path / "cache")
    texts = [line.split(",")[0] for line in (tmp_path / "data.csv").read_text().splitlines()[1:]]
    for i in (0, 5, 47):
        expected = tokenizer(texts[i])["input_ids"]
        assert tokens.ids[tokens.starts[i] : tokens.starts[i + 1]].tolist() == expected
    folder = next(path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir())
    before = (folder / "ids.npy").stat().st_mtime_ns
    load_tokens(task, "train", tokenizer, cache=tmp_path / "cache")
    assert (folder / "ids.npy").stat().st_mtime_ns == before


def test_changed_data_are_tokenised_anew(tmp_path):
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t"))
    task = _task(tmp_path)
    first = load_tokens(task, "train", tokenizer, cache=tmp_path / "cache")
    make_csv(tmp_path, rows=20)
    second = load_tokens(task, "train", tokenizer, cache=tmp_path / "cache")
    assert (len(first), len(second)) == (48, 20)


def test_a_batch_is_padded_to_a_multiple_of_eight_and_masked(tmp_path):
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t"))
    tokens = load_tokens(_task(tmp_path), "train", tokenizer, cache=tmp_path / "cache")
    batch = tokens.batch(np.array([0, 9]), torch.device("cpu"))  # 1 and 10 words, [CLS], [SEP]
    assert batch.ids.shape == (2, 16)
    assert batch.mask.sum(-1).tolist() == [3, 12]
    assert (batch.ids[~batch.mask] == tokenizer.pad_token_id).all()


def test_long_sentences_are_cut(tmp_path):
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t"))
    task = _task(tmp_path, max_length=6)
    assert load_tokens(task, "train", tokenizer, cache=tmp_path / "c").lengths.max() == 6


def test_pairs_have_two_token_types(tmp_path):
    (tmp_path / "p.tsv").write_text("a\tb\tlabel\nthe dog\ta cat\t1\ngood\tbad dogs\t0\n")
    file = str(tmp_path / "p.tsv")
    task = TaskSettings(name="own", train=file, dev=file, columns={"text": "a", "pair": "b"})
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t"))
    tokens = load_tokens(task, "train", tokenizer, cache=tmp_path / "c")
    assert tokens.types[: tokens.starts[1]].tolist() == [0, 0, 0, 0, 1, 1, 1]
