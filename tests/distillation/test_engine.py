"""The loop: resume, world size, accumulation, seeds, divergence, saved students."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.batches import evaluation_steps
from lkd_tune.distillation.engine import Distillation, DivergedError
from lkd_tune.distillation.run import distill
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.loading import load_model
from lkd_tune.records.measurement import Measurement
from tests.support.families import CONFIGS, make_classifier, make_csv, without_dropout
from tests.support.ranks import run_ranks

torch.set_num_threads(1)

TENSORS = torch.Tensor, torch.nn.Parameter

ALL_FIVE = {
    "wr_pair": {"weight": 1.0},
    "wr_triple": {"weight": 10.0, "window": 5},
    "ltr_pair": {"weight": 1.0},
    "ltr_triple": {"weight": 10.0},
    "logits": {"weight": 1.0, "temperature": 2.0, "alpha": 0.25},
}


def _spec(folder: Path, family: str = "bert", dropout: bool = False, **changes) -> TrialSpec:
    options = {} if dropout else without_dropout(family)
    data = make_csv(folder)
    settings = {
        "task": {"name": "own", "train": data, "dev": data},
        "teacher": make_classifier(folder / "teacher", family, **options),
        "student": {"depth": 2},
        "layer_map": {"word": (0, 2, 4), "layer": (0, 2, 4)},
        "losses": ALL_FIVE,
        "train": {"steps": 8, "batch_size": 8, "lr": 1e-3, "evaluations": 2},
        "seed": 3,
    }
    return TrialSpec.model_validate(settings | changes)


def _losses(measurements: list[Measurement]) -> list[dict[str, float]]:
    return [measurement.losses for measurement in measurements]


@pytest.mark.parametrize("family", CONFIGS)
def test_a_distillation_reports_all_terms_and_lowers_the_objective(tmp_path, family):
    spec = _spec(tmp_path, family, train={"steps": 24, "batch_size": 8, "lr": 3e-3})
    first, *_, last = distill(spec)
    assert set(last.losses) == {*ALL_FIVE, "total"}
    expected = sum(ALL_FIVE[name]["weight"] * last.losses[name] for name in ALL_FIVE)
    assert last.losses["total"] == pytest.approx(expected)
    assert last.losses["total"] < first.losses["total"]
    assert (last.step, last.total_steps, last.finished) == (24, 24, True)
    assert last.score == last.metrics["accuracy"]
    assert last.peak_memory_gib > 0
    assert last.samples_per_s > 0


def test_the_same_spec_gives_the_same_result(tmp_path):
    spec = _spec(tmp_path, dropout=True)
    assert _losses(list(distill(spec))) == _losses(list(distill(spec)))


def test_another_seed_gives_another(tmp_path):
    spec = _spec(tmp_path)
    other = spec.model_copy(update={"seed": 4})
    assert _losses(list(distill(spec))) != _losses(list(distill(other)))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_is_exact(tmp_path, stage, precision):
    train = {"steps": 8, "batch_size": 8, "lr": 1e-3, "evaluations": 2, "precision": precision}
    spec = _spec(tmp_path, dropout=True, train=train, resources={"zero_stage": stage})
    with Distillation(spec) as whole:
        next(whole)
        whole.save_checkpoint(tmp_path / "middle")
        expected = next(whole)
    with Distillation(spec) as resumed:
        resumed.load_checkpoint(tmp_path / "middle")
        found = next(resumed)
        assert found.losses == expected.losses
        assert found.metrics == expected.metrics
        assert found.train_s > 0


def _bytes_of_tensors() -> int:
    """Returns how much memory the tensors of this process take."""
    storages = [each.untyped_storage() for each in gc.get_objects() if type(each) in TENSORS]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


@pytest.mark.parametrize("source", ["auto", "live"])
@pytest.mark.parametrize(
    "stage", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 3]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_stays_in_memory_when_it_is_closed(tmp_path, stage, precision, source):
    train = {"steps": 4, "batch_size": 8, "evaluations": 1, "precision": precision}
    resources, targets = {"zero_stage": stage}, {"source": source}
    spec = _spec(tmp_path, train=train, resources=resources, targets=targets)
    list(distill(spec))  # what libraries keep is there from now on
    gc.collect()
    gc.disable()  # which would free all of it at some time by itself
    try:
        before = _bytes_of_tensors()
        with Distillation(spec) as distillation:
            next(distillation)
            during = _bytes_of_tensors()
            student = 4 * distillation.parameters
        after = _bytes_of_tensors()
    finally:
        gc.enable()
    assert during - before > 3 * student
    assert after - before < student / 10


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_head_that_no_loss_reaches_is_in_the_checkpoint_and_decays(tmp_path, stage, precision):
    train = {"steps": 8, "batch_size": 8, "lr": 1e-2, "weight_decay": 0.5, "evaluations": 2}
    losses = dict.fromkeys(["wr_triple", "ltr_pair", "ltr_triple", "logits"], 0) | {"wr_pair": 1}
    spec = _spec(
        tmp_path,
        train={**train, "precision": precision},
        losses=losses,
        resources={"zero_stage": stage},
    )
    with Distillation(spec) as whole:
        before = whole._engine.module.classifier.weight.float().norm().item()
        next(whole)
        whole.save_checkpoint(tmp_path / "middle")
        expected = next(whole)
        after = whole._engine.module.classifier.weight.float().norm().item()
    assert after < 0.99 * before
    with Distillation(spec) as resumed:
        resumed.load_checkpoint(tmp_path / "middle")
        found = next(resumed)
        assert found.losses == expected.losses
        assert resumed._engine.module.classifier.weight.float().norm().item() == after


def test_a_finished_trial_resumed_gives_its_last_measurement_and_student(tmp_path):
    spec = _spec(tmp_path)
    with Distillation(spec) as whole:
        *_, expected = whole
        whole.save_checkpoint(tmp_path / "end")
        whole.save_student(tmp_path / "a")
    with Distillation(spec) as resumed:
        resumed.load_checkpoint(tmp_path / "end")
        assert list(resumed) == [expected]
        resumed.save_student(tmp_path / "b")
    weights = [load_model(str(tmp_path / name)).state_dict() for name in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_do_not_change_the_objective(tmp_path, micro_batch_size):
    train = {"steps": 6, "batch_size": 8, "lr": 1e-3, "evaluations": 1}
    losses = {**ALL_FIVE, "relations_until": 0.5}
    whole = _losses(list(distill(_spec(tmp_path, train=train, losses=losses))))
    split = _spec(tmp_path, train={**train, "micro_batch_size": micro_batch_size}, losses=losses)
    for name, value in _losses(list(distill(split)))[0].items():
        assert value == pytest.approx(whole[0][name], rel=5e-4, abs=1e-8), name


@pytest.mark.parametrize("accumulation", [2, 3, 100])
@pytest.mark.parametrize("size", [{"batch_size": 8}, {"tokens_per_batch": 96}])
def test_accumulation_does_not_change_the_objective(tmp_path, size, accumulation):
    if size.get("tokens_per_batch") and accumulation == 100:
        accumulation = 4
    train = {"steps": 6, "lr": 1e-3, "evaluations": 1, **size}
    spec = _spec(tmp_path, train=train)
    with Distillation(spec) as once:
        (whole,) = once
    with Distillation(spec, accumulation=accumulation) as cut:
        (parts,) = cut
    for name, value in parts.losses.items():
        assert value == pytest.approx(whole.losses[name], rel=5e-4, abs=1e-8), name


def test_a_token_budget_trains_and_reports_its_padding(tmp_path):
    train = {"epochs": 2, "tokens_per_batch": 64, "lr": 1e-3, "evaluations": 2}
    measurements = list(distill(_spec(tmp_path, train=train)))
    assert measurements[-1].finished
    assert all(0 < measurement.padding < 0.5 for measurement in measurements)


def _run_rank(rank: int, spec: str, out: str) -> None:
    with Distillation(TrialSpec.model_validate_json(spec)) as distillation:
        measurements = [measurement.model_dump() for measurement in distillation]
        distillation.save_student(Path(out) / "student")
        metrics = distillation.evaluate("dev")
    Path(out, f"{rank}.json").write_text(json.dumps([measurements, metrics]))


@pytest.mark.parametrize(
    ("stage", "size", "until"),
    [(0, {"batch_size": 8}, 0.7), (2, {"tokens_per_batch": 88}, 1.0), (3, {}, 0.7)],
)
def test_two_workers_give_what_one_gives(tmp_path, stage, size, until):
    train = {"steps": 8, "batch_size": 8, "lr": 1e-3, "evaluations": 2, **size}
    changes = {"train": train, "losses": {**ALL_FIVE, "relations_until": until}}
    one = _spec(tmp_path, resources={"zero_stage": stage}, **changes)
    expected = list(distill(one))
    two = _spec(tmp_path, resources={"zero_stage": stage, "workers": 2}, **changes)
    run_ranks(2, _run_rank, two.to_json(), str(tmp_path))
    found = [json.loads((tmp_path / f"{r}.json").read_text()) for r in range(2)]
    for ours, theirs in zip(expected, found[0][0], strict=True):
        for name, value in ours.losses.items():
            assert theirs["losses"][name] == pytest.approx(value, rel=5e-4, abs=1e-8), name
    assert [m["losses"] for m in found[0][0]] == [m["losses"] for m in found[1][0]]
    assert found[0][1] == found[1][1]
    student = evaluate_model(str(tmp_path / "student"), two.task)["dev"]
    assert student == pytest.approx(found[0][1])


def test_a_saved_student_scores_what_the_measurement_says(tmp_path):
    spec = _spec(tmp_path)
    with Distillation(spec) as distillation:
        *_, last = distillation
        distillation.save_student(tmp_path / "student")
    assert evaluate_model(str(tmp_path / "student"), spec.task)["dev"] == last.metrics


def test_a_loss_that_is_not_finite_ends_the_trial_and_is_reported(tmp_path):
    train = {"steps": 40, "batch_size": 8, "lr": 1e30}
    with pytest.raises(DivergedError, match="the loss wr_pair is nan at step"):
        list(distill(_spec(tmp_path, train=train)))


def test_labels_alone_need_no_teacher_at_run_time(tmp_path):
    losses = dict.fromkeys(ALL_FIVE, 0) | {"logits": {"alpha": 1.0}}
    (last,) = distill(
        _spec(tmp_path, losses=losses, train={"steps": 3, "batch_size": 8, "evaluations": 1})
    )
    assert set(last.losses) == {"logits", "total"}


def test_regression(tmp_path):
    spec = _spec(tmp_path)
    task = spec.task.model_copy(update={"kind": "regression", "metric": "spearman"})
    teacher = make_classifier(tmp_path / "regression", labels=1)
    last = list(distill(spec.model_copy(update={"task": task, "teacher": teacher})))[-1]
    assert set(last.metrics) == {"pearson", "spearman"}


def test_a_random_layer_map_is_drawn_anew_and_resumes(tmp_path):
    maps = {"word": "random", "layer": "random"}
    spec = _spec(tmp_path, layer_map=maps)
    drawn = {
        spec.layer_map.at_step(step, seed=3, teacher_layers=4, depth=2)[0] for step in range(20)
    }
    assert drawn == {(0, 1, 4), (0, 2, 4), (0, 3, 4)}
    assert list(distill(spec))[-1].finished


def test_a_teacher_of_another_task_is_refused(tmp_path):
    teacher = make_classifier(tmp_path / "three", labels=3)
    with pytest.raises(SpecError, match="has 3 classes, the task own has 2"):
        list(distill(_spec(tmp_path).model_copy(update={"teacher": teacher})))


def test_evaluations_are_at_halves():
    assert evaluation_steps(TrainSettings(evaluations=4), 100) == [12, 25, 50, 100]
    assert evaluation_steps(TrainSettings(evaluations=5), 2) == [1, 2]


def test_losses_with_weight_zero_are_not_reported(tmp_path):
    losses = LossSettings(wr_triple={"weight": 0}, ltr_pair={"weight": 0})
    last = list(distill(_spec(tmp_path, losses=losses.model_dump())))[-1]
    assert set(last.losses) == {"wr_pair", "ltr_triple", "logits", "total"}
