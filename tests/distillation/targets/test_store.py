"""Stored targets compared with the live teacher's, and the building of a store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.classification import Classification
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets.base import LiveTeacher, Maps
from lkd_tune.distillation.targets.gpu_store import DeviceTargets
from lkd_tune.distillation.targets.store import StoredTargets
from lkd_tune.distillation.targets.store_build import get_or_build_store, store_folder
from lkd_tune.distillation.targets.store_format import read_store_info, target_bytes
from lkd_tune.files.disk import FullDiskError
from lkd_tune.models.loading import load_model, load_tokenizer
from tests.support.families import make_classifier, make_csv, without_dropout
from tests.support.ranks import run_processes

CPU = torch.device("cpu")
KIND = Classification()


def _parts(tmp_path: Path):
    # Wide enough initial weights, so that no relation is zero up to rounding.
    options = {**without_dropout("bert"), "initializer_range": 0.3}
    teacher = make_classifier(tmp_path / "teacher", **options)
    file = make_csv(tmp_path)
    task = TaskSettings(name="own", train=file, dev=file)
    tokens = load_tokens(task, "train", load_tokenizer(teacher), cache=tmp_path / "cache")
    return teacher, tokens, tmp_path / "cache"


@pytest.mark.parametrize("maps", [((0, 2, 4), (0, 2, 4)), ((1,), (0, 3)), ((4, 0, 2), (3, 1, 1))])
def test_stored_targets_are_those_of_the_live_teacher(tmp_path, maps):
    teacher, tokens, cache = _parts(tmp_path)
    stored = StoredTargets(get_or_build_store(teacher, tokens, KIND, CPU, cache), tokens, CPU)
    live = LiveTeacher(load_model(teacher), KIND, CPU)
    batch = tokens.batch(np.array([3, 40, 9, 0]), CPU)
    found, expected = (source(batch, Maps(*maps)) for source in (stored, live))
    torch.testing.assert_close(found.logits, expected.logits)
    words, real = batch.mask[:, None, :, None] & batch.mask[:, None, None, :], batch.mask
    largest = expected.word_relations.sq_dist.amax()
    error = (
        (found.word_relations.sq_dist - expected.word_relations.sq_dist)
        .abs()
        .masked_fill(~words, 0)
    )
    assert error.max() < 4e-5 * largest
    torch.testing.assert_close(
        found.word_relations.sq_norm.transpose(1, 2)[real],
        expected.word_relations.sq_norm.transpose(1, 2)[real],
    )
    torch.testing.assert_close(
        found.layer_relations.sq_norm[real], expected.layer_relations.sq_norm[real]
    )
    error = (found.layer_relations.sq_dist - expected.layer_relations.sq_dist)[real].abs()
    assert error.max() < 4e-5 * expected.layer_relations.sq_dist[real].amax()


@pytest.mark.parametrize("maps", [((0, 2, 4), (0, 2, 4)), ((1,), (0, 3)), ((4, 0, 2), (3, 1, 1))])
def test_targets_unpacked_on_a_device_are_those_unpacked_on_the_host(tmp_path, maps):
    teacher, tokens, cache = _parts(tmp_path)
    stored = StoredTargets(get_or_build_store(teacher, tokens, KIND, CPU, cache), tokens, CPU)
    there = DeviceTargets(stored, CPU)
    for examples in ([3, 40, 9, 0], [47], [7, 7]):
        batch = tokens.batch(np.array(examples), CPU)
        found, expected = (source(batch, Maps(*maps)) for source in (there, stored))
        assert torch.equal(found.logits, expected.logits)
        for ours, theirs in (
            (found.word_relations, expected.word_relations),
            (found.layer_relations, expected.layer_relations),
        ):
            assert torch.equal(ours.sq_norm, theirs.sq_norm)
            assert torch.equal(ours.sq_dist, theirs.sq_dist)
    assert there(batch, Maps()).word_relations is None


def test_training_losses_are_those_with_a_live_teacher(tmp_path):
    teacher, _, _ = _parts(tmp_path)
    data = str(tmp_path / "data.csv")
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        "teacher": teacher,
        "student": {"depth": 2, "init": "random"},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "losses": {"wr_triple": {"window": 5}},
        "train": {"steps": 50, "batch_size": 8, "lr": 1e-3, "evaluations": 6},
    }
    stored = list(distill(TrialSpec.model_validate(settings)))
    live = list(distill(TrialSpec.model_validate(settings | {"targets": {"source": "live"}})))
    for ours, theirs in zip(stored, live, strict=True):
        for name, value in theirs.losses.items():
            assert ours.losses[name] == pytest.approx(value, rel=1e-3), (ours.step, name)


def test_a_store_is_built_once_and_has_the_size_that_was_estimated(tmp_path):
    teacher, tokens, cache = _parts(tmp_path)
    reported = []
    folder = get_or_build_store(
        teacher, tokens, KIND, CPU, cache, progress=lambda *n: reported.append(n)
    )
    assert reported[-1] == (48, 48)
    facts = read_store_info(folder)
    assert facts["teacher_examples"] == facts["examples"] == 48
    headers = 6 * 128  # of the npy files
    assert facts["bytes"] == target_bytes(tokens, 5, 2, KIND) + headers
    reported.clear()
    again = get_or_build_store(
        teacher, tokens, KIND, CPU, cache, progress=lambda *n: reported.append(n)
    )
    assert again == folder
    assert reported == []


def _ask(teacher: str, file: str, cache: str, out: str) -> None:
    task = TaskSettings(name="own", train=file, dev=file)
    tokens = load_tokens(task, "train", load_tokenizer(teacher), cache=Path(cache))
    built: list[int] = []
    get_or_build_store(
        teacher, tokens, KIND, CPU, Path(cache), progress=lambda done, _: built.append(done)
    )
    Path(out).write_text(json.dumps(built))


def test_one_of_several_processes_builds_the_store(tmp_path):
    teacher, _, cache = _parts(tmp_path)
    outs = [tmp_path / f"{i}.json" for i in range(3)]
    data = str(tmp_path / "data.csv")
    run_processes(_ask, [(teacher, data, str(cache), str(out)) for out in outs])
    assert sorted(bool(json.loads(out.read_text())) for out in outs) == [False, False, True]
    assert [p.name for p in (cache / "targets").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["cut", "missing", "no facts"])
def test_a_damaged_store_is_built_again(tmp_path, damage):
    teacher, tokens, cache = _parts(tmp_path)
    folder = get_or_build_store(teacher, tokens, KIND, CPU, cache)
    if damage == "cut":
        with (folder / "words.npy").open("r+b") as file:
            file.truncate(200)
    else:
        (folder / ("words.npy" if damage == "missing" else "facts.json")).unlink()
    with pytest.raises(
        ValueError, match="do not have the sizes" if damage == "cut" else "does not hold"
    ):
        StoredTargets(folder, tokens, CPU)
    StoredTargets(get_or_build_store(teacher, tokens, KIND, CPU, cache), tokens, CPU)


def test_another_teacher_or_other_data_are_another_store(tmp_path):
    teacher, tokens, cache = _parts(tmp_path)
    before = store_folder(teacher, tokens, cache)
    torch.manual_seed(1)
    model = load_model(teacher)
    model.classifier.weight.data.add_(1)
    model.save_pretrained(teacher)
    assert store_folder(teacher, tokens, cache) != before
    make_csv(tmp_path, rows=20)
    file = str(tmp_path / "data.csv")
    task = TaskSettings(name="own", train=file, dev=file)
    fewer = load_tokens(task, "train", load_tokenizer(teacher), cache=cache)
    assert store_folder(teacher, fewer, cache) != store_folder(teacher, tokens, cache)


def test_a_store_beyond_its_limit_is_not_built(tmp_path, monkeypatch):
    teacher, _, _ = _parts(tmp_path)
    monkeypatch.setenv("LKD_TUNE_CACHE", str(tmp_path / "other"))
    data = str(tmp_path / "data.csv")
    spec = TrialSpec.model_validate(
        {
            "task": {"name": "own", "train": data, "dev": data},
            "teacher": teacher,
            "student": {"depth": 1},
            "layer_map": {"word": (0, 4), "layer": (0, 4)},
            "train": {"steps": 2, "batch_size": 8, "evaluations": 1},
            "targets": {"max_gb": 1e-9},
        }
    )
    assert list(distill(spec))[-1].finished
    assert not (tmp_path / "other" / "targets").exists()


def test_a_store_is_built_when_a_full_disk_has_space_again(small_disk, tmp_path):
    teacher, tokens, _ = _parts(tmp_path)
    size = target_bytes(tokens, 5, 2, KIND)
    cache = small_disk.path / "cache"
    (cache / "targets").mkdir(parents=True)
    small_disk.fill(free_kb=size // 2048)
    message = rf"no disk space for {size / 1e9:.2f} GB of the teacher's"
    with pytest.raises(FullDiskError, match=message):
        get_or_build_store(teacher, tokens, KIND, CPU, cache)
    assert not [*(cache / "targets").glob(".building-*")]
    small_disk.empty()
    folder = get_or_build_store(teacher, tokens, KIND, CPU, cache)
    assert read_store_info(folder)["examples"] == len(tokens)
