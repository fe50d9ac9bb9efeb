"""Every kind of task through the real engine: it learns, by labels and by a teacher."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from lkd_tune.config.settings.losses import LogitLoss
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.task_kinds import KINDS
from lkd_tune.config.settings.teacher import TeacherTraining
from lkd_tune.config.settings.training import TrainSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill
from lkd_tune.distillation.targets.base import LiveTeacher, Maps
from lkd_tune.distillation.targets.gpu_store import DeviceTargets
from lkd_tune.distillation.targets.store import StoredTargets
from lkd_tune.distillation.targets.store_build import get_or_build_store
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.evaluation.scoring import evaluate_model
from lkd_tune.models.loading import load_model, load_tokenizer
from lkd_tune.models.size import expected_size
from tests.support.kinds_data import make_task
from tests.support.tiny import LABELS

CPU = torch.device("cpu")
# What is had without looking at the text: the commoner class, no entity, a word by chance, the
# first sentences.
WITHOUT_TEXT = {
    "classification": 0.6,
    "regression": 0.1,
    "multi_label": 0.5,
    "tagging": 0.1,
    "question_answering": 0.3,
    "extractive_summary": 0.5,
    "masked_lm": 0.2,
}
PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "multi_label": "text-classification",
    "tagging": "token-classification",
    "question_answering": None,  # transformers 5 has no pipeline for it any more
    "extractive_summary": None,  # a pipeline has one [CLS]; see the model card's own lines
    "masked_lm": None,  # it has no names of classes
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a function from a kind to its task and trained teacher."""
    folder = tmp_path_factory.mktemp("kinds")
    known = {}

    def make(kind):
        if kind not in known:
            task = make_task(folder / kind, kind)
            training = TeacherTraining(
                architecture={
                    "layers": 2, "hidden_size": 32, "heads": 2, "init_std": 0.08, "dropout": 0
                },
                steps=160, batch_size=32, lr=3e-3, evaluations=1,
            )  # fmt: skip
            known[kind] = task, str(train_teacher(task, training, cache=folder / "cache"))
        return *known[kind], folder / "cache"

    return make


def _spec(task, teacher, **more):
    return TrialSpec(
        **{
            "task": task,
            "teacher": teacher,
            "student": StudentSettings(depth=1),
            "layer_map": {"word": (0, 2), "layer": (0, 2)},
            "losses": {},
            "train": TrainSettings(steps=80, batch_size=32, lr=2e-3, evaluations=1),
            "seed": 0,
            **more,
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_and_its_student_learn(kind, trained, tmp_path):
    task, teacher, cache = trained(kind)
    taught = evaluate_model(teacher, task, cache=cache)["dev"]
    assert set(KINDS[kind].metrics) <= set(taught)
    assert taught.get(f"lead_{task.metric}", 0) < WITHOUT_TEXT[kind]
    assert taught[task.metric] > max(0.7, WITHOUT_TEXT[kind] + 0.2)
    spec = _spec(
        task,
        teacher,
        losses={**LABELS, "logits": {"weight": 1, "alpha": 0}},  # no label reaches it
        student=StudentSettings(depth=1, init="random"),
        train=TrainSettings(steps=240, batch_size=32, lr=5e-3, beta2=0.98, evaluations=1),
    )
    with Distillation(spec, cache=cache) as distillation:
        (measured,) = distillation
        distillation.save_student(tmp_path / "student")
    assert measured.score > WITHOUT_TEXT[kind] + 0.2
    again = evaluate_model(str(tmp_path / "student"), task, cache=cache)["dev"]
    assert again == pytest.approx(measured.metrics)


def test_a_temperature_does_not_scale_numbers():
    """Else `alpha` would mix the squared difference with a ninth of it."""
    regression = kind_of(TaskSettings(name="own", kind="regression", train="a.csv", dev="a.csv"))
    student, teacher = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [1.0]])
    soft = regression.soft_label_loss(student, teacher, LogitLoss(temperature=3))
    assert (soft.total.item(), soft.count.item()) == (10.0, 2.0)
    assert regression.hard_label_loss(student, teacher[:, 0]).item() == 10.0


@pytest.mark.parametrize("kind", KINDS)
def test_stored_targets_teach_as_the_live_teacher(kind, trained):
    task, teacher, cache = trained(kind)
    losses = {
        source: [
            m.losses["logits"]
            for m in distill(
                _spec(
                    task, teacher, targets={"source": source},
                    losses={"logits": {"weight": 1, "alpha": 0.3, "temperature": 2}},
                    train=TrainSettings(steps=4, batch_size=16, lr=1e-3, evaluations=3),
                ),
                cache=cache,
            )
        ]
        for source in ("auto", "live")
    }  # fmt: skip
    assert losses["auto"] == pytest.approx(losses["live"], rel=1e-3)
    assert all(np.isfinite(losses["auto"]))


@pytest.mark.parametrize("kind", ["tagging", "question_answering", "extractive_summary"])
def test_stored_logits_of_tokens_are_the_teacher_s(kind, trained):
    task, teacher, cache = trained(kind)
    of, tokens = kind_of(task), load_tokens(task, "train", load_tokenizer(teacher), cache=cache)
    stored = StoredTargets(get_or_build_store(teacher, tokens, of, CPU, cache), tokens, CPU)
    live = LiveTeacher(load_model(teacher, of.head), of, CPU)
    batch = tokens.batch(np.array([3, 11, 40]), CPU)
    maps = ((0, 1), (0, 1))
    found, expected = (source(batch, Maps(*maps)).logits for source in (stored, live))
    torch.testing.assert_close(found[batch.mask], expected[batch.mask], rtol=1e-4, atol=1e-4)
    assert torch.equal(DeviceTargets(stored, CPU)(batch, Maps()).logits, found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["accumulation", "batches"])
def test_the_objective_does_not_depend_on_how_a_batch_is_cut(kind, change, trained):
    """Words, windows and examples are counted over the whole batch."""
    task, teacher, cache = trained(kind)
    train = TrainSettings(steps=3, batch_size=16, lr=1e-3, evaluations=1)
    spec = _spec(task, teacher, train=train)
    if change == "batches":
        cut = spec.model_copy(update={"train": train.model_copy(update={"micro_batch_size": 4})})
        pair = [(spec, 1), (cut, 1)]
    else:
        pair = [(spec, 1), (spec, 4)]
    found = []
    for each, accumulation in pair:
        with Distillation(each, cache=cache, accumulation=accumulation) as distillation:
            found.append(next(distillation).losses)
    assert found[0] == pytest.approx(found[1], rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrower_student_is_carved_counted_and_loads_again(kind, trained, tmp_path):
    task, teacher, cache = trained(kind)
    student = StudentSettings(depth=1, hidden_size=16)
    spec = _spec(task, teacher, student=student)
    with Distillation(spec, cache=cache) as distillation:
        (measured,) = distillation
        distillation.save_student(tmp_path / "student")
    size = expected_size(spec, latencies=tmp_path)
    assert size is not None
    assert size.parameters == measured.parameters
    again = evaluate_model(str(tmp_path / "student"), task, cache=cache)["dev"]
    assert again == pytest.approx(measured.metrics)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if PIPELINES[kind]])
def test_a_student_works_in_a_pipeline_with_the_names_of_its_classes(kind, trained, tmp_path):
    task, teacher, cache = trained(kind)
    with Distillation(_spec(task, teacher), cache=cache) as distillation:
        next(distillation)
        distillation.save_student(tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    found = pipeline(PIPELINES[kind], model=str(tmp_path / "student"), tokenizer=tokenizer)(
        "the film was awful"
    )
    names = {entry.get("label", entry.get("entity")) for entry in found}
    known = {
        "classification": {"good", "bad"},
        "multi_label": {"good", "bad", "film"},
        "tagging": {"B-good", "B-bad"},
        "regression": {"LABEL_0"},
    }
    assert names <= known[kind]
    assert names
