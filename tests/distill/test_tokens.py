"""Tokenised splits and the order of batches."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lkd_tune.distill.models import load_tokenizer
from lkd_tune.distill.tokens import batches_from, epoch_batches, load_tokens
from lkd_tune.spec.settings import Columns, TaskSettings
from tests.distill.families import make_classifier, make_csv


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


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 5),
)
def test_an_epoch_has_full_batches_and_no_example_twice(lengths, batch_size, seed):
    batches = epoch_batches(np.array(lengths), batch_size, seed, 0)
    assert {len(batch) for batch in batches} == {batch_size}
    examples = np.concatenate(batches)
    if len(lengths) >= batch_size:
        assert len(set(examples.tolist())) == len(examples) > len(lengths) - batch_size


def test_batches_from_a_later_step_are_those_of_the_whole_sequence():
    lengths = np.random.default_rng(0).integers(1, 30, 50)
    whole = [batch for batch, _ in zip(batches_from(lengths, 8, 3, 0), range(20), strict=False)]
    later = [batch for batch, _ in zip(batches_from(lengths, 8, 3, 9), range(11), strict=False)]
    assert all(np.array_equal(a, b) for a, b in zip(whole[9:], later, strict=True))


def test_bucketing_leaves_little_padding():
    lengths = np.random.default_rng(0).integers(4, 60, 2000)
    widths = [lengths[batch].max() * len(batch) for batch in epoch_batches(lengths, 32, 0, 0)]
    random = [lengths[i : i + 32].max() * 32 for i in range(0, 1984, 32)]
    assert sum(widths) < 1.1 * lengths.sum() < 0.7 * sum(random)
