"""Examples that no student can learn from are reported or skipped; nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.batches import Batches
from lkd_tune.distillation.bad_examples import BadExamplesError
from lkd_tune.distillation.engine import Distillation, DivergedError
from lkd_tune.distillation.run import distill
from lkd_tune.models.loading import load_tokenizer
from tests.support.families import WORDS, make_classifier, without_dropout
from tests.support.ranks import run_ranks

torch.set_num_threads(1)

ROWS, BAD_ROW = 120, 71
TRAIN = {"steps": 30, "batch_size": 8, "lr": 1e-3, "evaluations": 2}


def _data(folder: Path, bad_word: str = "not", bad_rows: tuple[int, ...] = (BAD_ROW,)) -> str:
    """Writes sentences of which only some rows, counted from 1, have a certain word."""
    words = [word for word in WORDS if word != bad_word]
    lines = ["text,label"]
    for i in range(ROWS):
        text = [words[(i * 7 + k * (i + 3)) % len(words)] for k in range(2 + i % 7)]
        text += [bad_word] if i + 1 in bad_rows else []
        lines.append(f"{' '.join(text)},{i % 2}")
    path = folder / "data.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _poison(model: Path, word: str = "not") -> None:
    """Makes a model's embedding of one word NaN."""
    weights = load_file(model / "model.safetensors")
    row = load_tokenizer(str(model)).convert_tokens_to_ids(word)
    (name,) = [name for name in weights if name.endswith("word_embeddings.weight")]
    weights[name][row] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def _spec(folder: Path, *, bad_rows: tuple[int, ...] = (BAD_ROW,), **changes: Any) -> TrialSpec:
    teacher = make_classifier(folder / "teacher", **without_dropout("bert"))
    data = _data(folder, bad_rows=bad_rows)
    dev = folder / "dev.csv"
    dev.write_text("text,label\nthe good dog,1\na bad cat,0\n")
    settings = {
        "task": {"name": "own", "train": data, "dev": str(dev)},
        "teacher": teacher,
        "student": {"depth": 2},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "train": TRAIN,
    }
    return TrialSpec.model_validate(settings | changes)


def _skipping(**train: Any) -> dict[str, Any]:
    return {**TRAIN, "bad_examples": "skip", **train}


def test_a_bad_example_is_reported_with_its_row_and_term(tmp_path):
    spec = _spec(tmp_path)
    _poison(tmp_path / "teacher")
    with pytest.raises(BadExamplesError) as caught:
        list(distill(spec))
    (bad,) = caught.value.examples
    assert (bad.split, bad.row, bad.example, bad.found) == ("train", BAD_ROW, BAD_ROW - 1, "nan")
    assert bad.term in ("wr_pair", "logits")
    assert f"train row {BAD_ROW} ({bad.term} is nan)" in str(caught.value)
    assert "data.csv, or set train.bad_examples=skip" in str(caught.value)


def test_skipping_is_training_as_if_the_example_had_been_left_out(tmp_path, caplog):
    spec = _spec(tmp_path, train=_skipping())
    with Distillation(spec, skipped=[BAD_ROW - 1]) as without:
        expected = list(without)
    _poison(tmp_path / "teacher")
    found = list(distill(spec))
    assert [m.losses for m in found] == [m.losses for m in expected]
    assert [m.step for m in found] == [15, 30]  # none is repeated
    assert found[-1].skipped == 1
    assert f"train row {BAD_ROW}" in caplog.text
    assert expected[-1].metrics == found[-1].metrics


def test_all_bad_examples_are_found_at_once_and_too_many_end_it(tmp_path, monkeypatch):
    begun = []
    original = Distillation.__init__

    def count(self, *args, **options):
        begun.append(options.get("skipped"))
        original(self, *args, **options)

    monkeypatch.setattr(Distillation, "__init__", count)
    # Of 121 rows 1% is one.
    spec = _spec(tmp_path, bad_rows=(5, BAD_ROW), train=_skipping())
    _poison(tmp_path / "teacher")
    with pytest.raises(BadExamplesError, match="at most 1% may be skipped") as caught:
        list(distill(spec))
    assert [bad.row for bad in caught.value.examples] == [5, BAD_ROW]
    assert begun == [[]]


def test_poisoned_stored_targets_are_found_where_the_student_is_fine(tmp_path):
    spec = _spec(tmp_path, train=_skipping(), losses={"logits": {"weight": 1}})
    cache = tmp_path / "cache"
    with Distillation(spec, cache=cache):
        pass
    (logits,) = cache.glob("targets/*/logits.npy")
    array = np.load(logits)
    array[BAD_ROW - 1] = np.inf
    np.save(logits, array)
    last = list(distill(spec, cache=cache))[-1]
    assert last.skipped == 1
    assert all(np.isfinite(value) for value in last.losses.values())


def test_an_example_that_is_bad_for_a_term_that_has_ended_is_not_bad(tmp_path):
    train = {**TRAIN, "steps": 15}
    weights = {"ltr_pair": 0, "ltr_triple": 0, "logits": {"weight": 1, "alpha": 1}}
    whole = _spec(tmp_path, train=train, losses=weights)
    cache = tmp_path / "cache"
    with Distillation(whole, cache=cache) as distillation:
        batches = distillation._batches.starting_at(0)
        at = next(step for step in range(15) if BAD_ROW - 1 in next(batches))
    assert at > 0
    (scales,) = cache.glob("targets/*/word_scales.npy")
    array = np.load(scales)
    array.reshape(ROWS, -1)[BAD_ROW - 1] = np.nan
    np.save(scales, array)
    with pytest.raises(BadExamplesError, match=f"train row {BAD_ROW} .wr_"):
        list(distill(whole, cache=cache))
    before = _spec(tmp_path, train=train, losses={**weights, "relations_until": at / 15})
    assert list(distill(before, cache=cache))[-1].finished


def test_an_example_that_raises_is_named_or_left_out(tmp_path):
    spec = _spec(tmp_path)
    with Distillation(spec) as distillation:
        start = distillation._train.starts[BAD_ROW - 1]
        folder = distillation._train.folder
    assert folder is not None
    ids = np.load(folder / "ids.npy")
    ids[start + 1] = 10**6  # no such token
    np.save(folder / "ids.npy", ids)
    stored = spec.model_copy(update={"losses": spec.losses})
    with pytest.raises(BadExamplesError, match=f"train row {BAD_ROW} .IndexError: ") as caught:
        list(distill(stored))
    assert caught.value.examples[0].term is None
    train = TrainSettings(**_skipping())
    assert list(distill(spec.model_copy(update={"train": train})))[-1].skipped == 1


def test_a_diverged_loss_that_no_example_causes_names_none(tmp_path):
    spec = _spec(tmp_path, train=_skipping(lr=1e30))
    with pytest.raises(DivergedError, match="no single example causes it") as caught:
        list(distill(spec))
    assert not isinstance(caught.value, BadExamplesError)


def test_a_batch_without_an_example_keeps_the_others_in_their_order():
    lengths, train = np.arange(3, 43), TrainSettings(batch_size=8)
    whole = Batches(lengths, train, 0).starting_at(0)
    cut = Batches(lengths, train, 0, skipped=[7, 11]).starting_at(0)
    for _ in range(12):
        assert next(cut).tolist() == [e for e in next(whole) if e not in (7, 11)]
    # Where each share needs one, an example is repeated and none is missing.
    few = Batches(lengths, TrainSettings(batch_size=2), 0, shares=2, skipped=range(39))
    assert [next(iter(few.starting_at(i))).tolist() for i in range(3)] == [[39, 39]] * 3


def _run_rank(rank: int, spec: str, out: str) -> None:
    measurements = [m.model_dump() for m in distill(TrialSpec.model_validate_json(spec))]
    Path(out, f"{rank}.json").write_text(json.dumps(measurements))


@pytest.mark.slow
def test_two_workers_skip_the_same_examples(tmp_path):
    one = _spec(tmp_path, train=_skipping())
    _poison(tmp_path / "teacher")
    expected = list(distill(one))
    two = one.model_copy(update={"resources": one.resources.model_copy(update={"workers": 2})})
    run_ranks(2, _run_rank, two.to_json(), str(tmp_path))
    found = [json.loads((tmp_path / f"{r}.json").read_text()) for r in range(2)]
    assert found[0][-1]["losses"] == found[1][-1]["losses"]
    assert found[0][-1]["skipped"] == 1
    for name, value in expected[-1].losses.items():
        assert found[0][-1]["losses"][name] == pytest.approx(value, rel=5e-4, abs=1e-8), name
