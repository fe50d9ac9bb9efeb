"""Stored hidden states, queries, keys and values compared with the live teacher's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import TargetSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.classification import Classification
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets import store_build
from lkd_tune.distillation.targets.base import LiveTeacher, Maps
from lkd_tune.distillation.targets.gpu_store import DeviceTargets
from lkd_tune.distillation.targets.store import StoredTargets, parts_that_fit
from lkd_tune.distillation.targets.store_build import get_or_build_store
from lkd_tune.distillation.targets.store_format import read_store_info, target_bytes
from lkd_tune.distillation.targets.vectors import VECTOR_PARTS, vector_bytes, vector_folder
from lkd_tune.models.loading import load_model, load_tokenizer
from tests.support.families import make_classifier, make_csv, without_dropout

torch.set_num_threads(1)

CPU, KIND = torch.device("cpu"), Classification()
LAYERS, WIDTH, HEADS = 5, 32, 4
MAPS = [
    Maps(hidden=(0, 2, 4), attention=(2, 4)),
    Maps(hidden=(3,), first_word=True),
    Maps(word=(0, 4), layer=(0, 4), attention=(4, 1, 1)),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    options = {**without_dropout("bert"), "initializer_range": 0.3}
    teacher, file = make_classifier(folder / "teacher", **options), make_csv(folder)
    task = TaskSettings(name="own", train=file, dev=file)
    tokens = load_tokens(task, "train", load_tokenizer(teacher), cache=folder / "cache")
    stored = get_or_build_store(teacher, tokens, KIND, CPU, folder / "cache", vectors=VECTOR_PARTS)
    return teacher, tokens, stored


@pytest.mark.parametrize("maps", MAPS)
def test_stored_vectors_are_those_of_the_live_teacher(parts, maps):
    teacher, tokens, folder = parts
    stored = StoredTargets(folder, tokens, CPU, VECTOR_PARTS)
    live = LiveTeacher(load_model(teacher), KIND, CPU)
    batch = tokens.batch(np.array([3, 40, 9, 0]), CPU)
    found, expected = (source(batch, maps) for source in (stored, live))
    pairs = [(found.hidden_states or (), expected.hidden_states or ())]
    if maps.attention:
        pairs += [*zip(found.attention[:3], expected.attention[:3], strict=True)]
        assert found.attention.heads == expected.attention.heads == HEADS
    assert any(theirs for _, theirs in pairs)
    for ours, theirs in pairs:
        for own, their in zip(ours, theirs, strict=True):
            real = batch.mask[:, : own.shape[1]]
            limit = 1.6e-5 * their[real].abs().amax(-1, keepdim=True)
            assert ((own[real] - their[real]).abs() <= limit).all()
            assert (own[~real] == 0).all()
    assert (found.word_relations is None) == (not maps.word)


@pytest.mark.parametrize("maps", MAPS)
def test_vectors_unpacked_on_a_device_are_those_unpacked_on_the_host(parts, maps):
    _, tokens, folder = parts
    stored = StoredTargets(folder, tokens, CPU, VECTOR_PARTS)
    there = DeviceTargets(stored, CPU)
    for examples in ([3, 40, 9, 0], [47], [7, 7]):
        batch = tokens.batch(np.array(examples), CPU)
        found, expected = (source(batch, maps) for source in (there, stored))
        both = [(found.hidden_states, expected.hidden_states)]
        if maps.attention:
            both += [*zip(found.attention[:3], expected.attention[:3], strict=True)]
        for ours, theirs in both:
            assert all(map(torch.equal, ours or (), theirs or ()))
            assert len(ours or ()) == len(theirs or ())


def test_a_value_that_is_not_finite_stays_so(parts, tmp_path):
    teacher, tokens, _ = parts
    model = load_model(teacher)
    model.bert.encoder.layer[1].output.LayerNorm.bias.data[0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    load_tokenizer(teacher).save_pretrained(tmp_path / "broken")
    broken = str(tmp_path / "broken")
    folder = get_or_build_store(broken, tokens, KIND, CPU, tmp_path, vectors=["hidden_states"])
    stored = StoredTargets(folder, tokens, CPU, ["hidden_states"])
    batch = tokens.batch(np.array([3]), CPU)
    first, second = stored(batch, Maps(hidden=(1, 2))).hidden_states
    assert torch.isfinite(first).all()
    assert not torch.isfinite(second[batch.mask]).any()


def test_the_teacher_runs_once_for_all_parts_that_are_missing(parts, tmp_path, monkeypatch):
    teacher, tokens, _ = parts
    passes = []
    original = store_build._build

    def counted(drafts, *arguments):
        passes.append([*drafts])
        original(drafts, *arguments)

    monkeypatch.setattr(store_build, "_build", counted)

    def ask(cache: Path, *vectors: str) -> Path:
        return get_or_build_store(teacher, tokens, KIND, CPU, cache, vectors=vectors)

    folder = ask(tmp_path / "a")
    assert ask(tmp_path / "a", "attention") == ask(tmp_path / "a", *VECTOR_PARTS) == folder
    ask(tmp_path / "b", *VECTOR_PARTS)
    assert passes == [
        ["relations"], ["attention"], ["hidden_states"], ["relations", *VECTOR_PARTS],
    ]  # fmt: skip
    (vector_folder(folder, "attention") / "levels.npy").unlink()
    ask(tmp_path / "a", *VECTOR_PARTS)
    assert passes[4:] == [["attention"]]
    for part in VECTOR_PARTS:
        headers = 2 * 128  # of the npy files
        found = read_store_info(vector_folder(folder, part))["bytes"]
        assert found == vector_bytes(part, tokens, LAYERS, WIDTH) + headers


def test_parts_are_stored_in_a_fixed_order_as_far_as_they_fit(parts):
    _, tokens, _ = parts
    config = SimpleNamespace(num_hidden_layers=LAYERS - 1, hidden_size=WIDTH)
    base = {"logits", "word_relations", "layer_relations"}
    sizes = [target_bytes(tokens, LAYERS, 2, KIND)]
    sizes += [vector_bytes(part, tokens, LAYERS, WIDTH) for part in VECTOR_PARTS]

    def fitting(size: float, **options) -> frozenset[str]:
        limits = TargetSettings(max_gb=size / 1e9, **options)
        return parts_that_fit(limits, tokens, config, 2, KIND)

    assert fitting(sizes[0] - 1) == set()
    assert fitting(sizes[0]) == base
    assert fitting(sizes[0] + sizes[1]) == {*base, "hidden_states"}
    assert fitting(sum(sizes)) == {*base, *VECTOR_PARTS}
    assert fitting(sum(sizes), source="live") == set()


@pytest.mark.parametrize("name", ["hidden", "attention"])
def test_losses_with_stored_vectors_are_those_with_a_live_teacher(parts, tmp_path, name):
    teacher, _, _ = parts
    data = str(Path(teacher).parent / "data.csv")
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        "teacher": teacher,
        "student": {"depth": 2, "init": "random"},
        "layer_map": {"word": "random", "layer": "random"},
        "losses": {"recipe": "soft_labels", name: {"weight": 1, "layers": "all"}},
        "train": {"steps": 30, "batch_size": 8, "lr": 1e-3, "evaluations": 4},
    }
    stored, live, tight = (
        list(distill(TrialSpec.model_validate(settings | {"targets": targets}), cache=tmp_path))
        for targets in ({}, {"source": "live"}, {"max_gb": 5e-5})
    )
    for ours, theirs in zip(stored, live, strict=True):
        for term, value in theirs.losses.items():
            assert ours.losses[term] == pytest.approx(value, rel=1e-3), (ours.step, term)
    assert [m.losses for m in tight] == [m.losses for m in live]
    folders = {path.name.partition("-")[2] for path in (tmp_path / "targets").glob("*[!k]")}
    part = "hidden_states" if name == "hidden" else "attention"
    assert f"{part}-1" in folders
    assert len(folders) == 2
