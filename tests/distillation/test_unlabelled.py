"""Distillation on text without labels: the objective, which text a trial uses, and for how long."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.batches import Batches, used_examples
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.training_text import load_training_text
from lkd_tune.data.types import UNLABELLED, Batch
from lkd_tune.distillation.augmentation import load_training_tokens
from lkd_tune.distillation.batch_losses import BatchLosses
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.objective import TrainingObjective, totals
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets.base import Maps
from lkd_tune.losses.inputs import Targets
from lkd_tune.models.loading import load_tokenizer
from lkd_tune.records.measurement import Measurement
from tests.support.families import WORDS, make_classifier, make_csv, without_dropout
from tests.support.ranks import run_ranks

torch.set_num_threads(1)
CPU = torch.device("cpu")


def _spec(folder: Path, *, rows: int = 12, **changes: Any) -> TrialSpec:
    """Returns a trial on 12 rows with labels and some others, five words long at most."""
    rng = np.random.default_rng(7)
    lines = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(80)]
    (folder / "more.txt").write_text("\n".join(["", *lines]) + "\n")
    task = {
        "name": "own",
        "train": make_csv(folder, rows, "train.csv"),
        "dev": make_csv(folder, 24, "dev.csv"),
        "unlabelled": str(folder / "more.txt"),
    }
    settings = {
        "task": task | changes.pop("task", {}),
        "teacher": make_classifier(folder / "teacher", **without_dropout("bert")),
        "student": {"depth": 2},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "losses": {"recipe": "soft_labels", "wr_pair": 1.0},
        "train": {"steps": 6, "batch_size": 8, "lr": 1e-3, "evaluations": 2},
        "seed": 3,
    }
    return TrialSpec.model_validate(settings | changes)


def _losses(measurements: list[Measurement]) -> list[dict[str, float]]:
    return [measurement.losses for measurement in measurements]


def _batch(labels: list[int]) -> Batch:
    ids = torch.zeros(len(labels), 8, dtype=torch.int64)
    return Batch(ids, ids, ids == 0, torch.tensor(labels), np.arange(len(labels)))


def test_labels_count_as_a_mean_over_the_rows_that_have_one():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3).unbind()
    labels = [2, UNLABELLED, 0, UNLABELLED, UNLABELLED]
    losses = LossSettings(recipe="soft_labels", logits={"alpha": 0.3, "scaled": False})
    objective = TrainingObjective(losses, kind_of(SimpleNamespace(kind="classification")))
    hard = sum(-student[i].log_softmax(-1)[labels[i]] for i in (0, 2)) / 2
    soft = 0.0
    for row in range(5):
        q, p = (teacher[row] / 2).softmax(-1), (student[row] / 2).log_softmax(-1)
        soft = soft - (q * p).sum() / 5
    expected = 0.3 * hard + 0.7 * soft

    # However the batch is cut, also into parts without any label.
    for cut in ([5], [2, 3], [1, 1, 1, 1, 1]):
        parts = list(zip(student.split(cut), teacher.split(cut), _cut(labels, cut), strict=True))
        batches = [_batch(own) for *_, own in parts]
        counts = objective.counts(batches, Maps())
        sums = [
            objective.sums(SimpleNamespace(logits=ours, hidden_states=None), Targets(theirs), each)
            for (ours, theirs, _), each in zip(parts, batches, strict=True)
        ]
        total = sum(objective.weighted(own, counts) for own in sums)
        assert total.item() == pytest.approx(expected.item(), rel=1e-6)
        seen = torch.stack([sum(map(totals, sums)), counts], dim=1)
        report = objective.report(seen)
        assert report["logits"] == report["total"] == pytest.approx(expected.item(), rel=1e-6)


def _cut(labels: list[int], sizes: list[int]) -> list[list[int]]:
    ends = np.cumsum(sizes)
    return [labels[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def test_a_batch_without_labels_has_the_teacher_s_part_alone(tmp_path):
    objective = TrainingObjective(
        LossSettings(recipe="soft_labels"), kind_of(SimpleNamespace(kind="classification"))
    )
    logits = torch.randn(3, 2, requires_grad=True)
    batch = _batch([UNLABELLED] * 3)
    output = SimpleNamespace(logits=logits, hidden_states=None)
    sums = objective.sums(output, Targets(torch.randn(3, 2)), batch)
    objective.weighted(sums, objective.counts([batch], Maps())).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.any()


@pytest.mark.parametrize("how", [{"micro_batch_size": 1}, {"micro_batch_size": 2}])
def test_micro_batches_do_not_change_the_objective(tmp_path, how):
    whole, parts = _spec(tmp_path), _spec(tmp_path)
    parts = parts.model_copy(update={"train": parts.train.model_copy(update=how)})
    for ours, theirs in zip(_losses([*distill(whole)]), _losses([*distill(parts)]), strict=True):
        assert ours == pytest.approx(theirs, rel=5e-4, abs=1e-8)


def _run_rank(rank: int, spec: str, out: str) -> None:
    with Distillation(TrialSpec.model_validate_json(spec)) as distillation:
        Path(out, f"{rank}.json").write_text(json.dumps([m.losses for m in distillation]))


def test_two_workers_give_what_one_gives(tmp_path):
    expected = _losses([*distill(_spec(tmp_path))])
    run_ranks(2, _run_rank, _spec(tmp_path, resources={"workers": 2}).to_json(), str(tmp_path))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for ours, theirs in zip(expected, found, strict=True):
            assert theirs == pytest.approx(ours, rel=5e-4, abs=1e-8)


def test_stored_targets_serve_the_unlabelled_text(tmp_path):
    live = _spec(tmp_path, targets={"source": "live"})
    for ours, theirs in zip(distill(_spec(tmp_path)), distill(live), strict=True):
        assert ours.losses["logits"] == pytest.approx(theirs.losses["logits"], rel=1e-3)
        assert ours.unlabelled == theirs.unlabelled > 60


def test_resume_is_exact(tmp_path):
    spec = _spec(tmp_path)
    with Distillation(spec) as whole:
        next(whole)
        whole.save_checkpoint(tmp_path / "middle")
        expected = next(whole)
    with Distillation(spec) as resumed:
        resumed.load_checkpoint(tmp_path / "middle")
        assert next(resumed).losses == expected.losses


def test_without_labelled_text_students_learn_the_teacher_s_answers(tmp_path):
    losses = {"recipe": "soft_labels", "logits": {"alpha": 0.0}}
    train = {"steps": 30, "batch_size": 8, "lr": 3e-3, "evaluations": 2}
    spec = _spec(tmp_path, task={"train": None}, losses=losses, train=train)
    first, last = distill(spec)
    assert last.losses["logits"] < first.losses["logits"]
    said = "logits.alpha 0.5 needs labels, and without task.train there are none"
    with pytest.raises(ValidationError, match=said):
        _spec(tmp_path, task={"train": None}, losses="soft_labels")
    with pytest.raises(ValidationError, match=r"unlabelled_share 0 leaves no text"):
        _spec(tmp_path, task={"train": None}, losses=losses, train={"unlabelled_share": 0.0})


def test_the_labels_alone_use_labelled_text_alone_for_as_many_steps(tmp_path):
    spec = _spec(tmp_path, train={"epochs": 2, "batch_size": 8, "evaluations": 1})
    (both,), (alone,) = distill(spec), distill(spec.on_labels_alone())
    assert both.total_steps == alone.total_steps == 2 * ((12 + both.unlabelled) // 8)
    assert alone.unlabelled == 0
    other = spec.model_copy(
        update={"train": spec.train.model_copy(update={"unlabelled_share": 0.5})}
    )
    assert other.on_labels_alone().digest() == spec.on_labels_alone().digest()


def _used(spec: TrialSpec, share: float, labelled: np.ndarray) -> np.ndarray:
    train = spec.train.model_copy(update={"unlabelled_share": share})
    return used_examples(spec.model_copy(update={"train": train}), labelled)


def test_a_smaller_share_is_a_part_of_a_larger_one_and_trains_as_long(tmp_path):
    spec = _spec(tmp_path, task={"augment": {"copies": 2}})
    tokens = load_training_tokens(spec.task, spec.teacher, load_tokenizer(spec.teacher), CPU)
    rows = len(tokens) // 3
    assert tokens.labelled.sum() == 3 * 12
    assert np.array_equal(_used(spec, 1.0, tokens.labelled), np.arange(len(tokens)))
    found = [{*_used(spec, share, tokens.labelled).tolist()} for share in (0.0, 0.25, 0.5, 1.0)]
    assert found[0] == {*np.flatnonzero(tokens.labelled).tolist()}
    assert all(less < more for less, more in pairwise(found))
    assert len(found[2]) == 3 * (12 + -(-(rows - 12) // 2))
    for used in found:  # a text is used with all of its copies
        assert {example % rows for example in used} == {each for each in used if each < rows}
    train = spec.train.model_copy(update={"steps": None, "epochs": 3})
    few = np.array(sorted(found[1]))
    batches = Batches(tokens.lengths, train, 0, examples=few)
    assert batches.total_steps() == Batches(tokens.lengths, train, 0).total_steps()
    drawn = np.concatenate([next(batches.starting_at(step)) for step in range(20)])
    assert {*drawn.tolist()} <= {*few.tolist()}
    assert np.array_equal(next(batches.starting_at(7)), _at(batches, 7))


def _at(batches: Batches, step: int) -> np.ndarray:
    """Returns the batch of a step, from all before it."""
    every = batches.starting_at(0)
    for _ in range(step):
        next(every)
    return next(every)


def test_a_bad_row_is_named_by_its_place_in_its_file(tmp_path, monkeypatch):
    spec = _spec(tmp_path, train={"steps": 12, "batch_size": 8, "evaluations": 1})
    rows = load_training_text(spec.task).rows
    example, row = 12 + 5, rows[5]
    assert row > 5  # some rows before it are left out
    original = BatchLosses.sums

    def sums(self: Any, student: Any, batch: Batch, maps: Maps) -> Any:
        found = original(self, student, batch, maps)
        if example in batch.examples:
            raise ValueError("no such word")
        return found

    monkeypatch.setattr(BatchLosses, "sums", sums)
    with pytest.raises(RuntimeError) as error:
        list(distill(spec))
    assert f"unlabelled row {row + 1} (ValueError: no such word)" in str(error.value)
    assert f"correct or remove it in {tmp_path}/more.txt" in str(error.value)


def test_nothing_changes_without_unlabelled_text(tmp_path):
    task = TaskSettings(name="own", train="t.csv", dev="d.csv")
    spec = _spec(tmp_path).model_copy(update={"task": task})
    assert np.array_equal(used_examples(spec, np.ones(9, bool)), np.arange(9))
    lengths = np.random.default_rng(0).integers(3, 20, 90)
    plain, given = (Batches(lengths, spec.train, 5, examples=own) for own in (None, np.arange(90)))
    for step in (0, 3, 40):
        assert np.array_equal(next(plain.starting_at(step)), next(given.starting_at(step)))
