"""Students whose tokenizer has other tokens than the teacher's."""

import csv

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lkd_tune.config.errors import SpecError
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.trial import TrialSpec
from lkd_tune.distillation.engine import Distillation
from lkd_tune.distillation.run import distill_locally
from lkd_tune.distillation.targets.base import LiveTeacher, Maps
from lkd_tune.distillation.targets.store import StoredTargets
from lkd_tune.distillation.trial_text import load_trial_text
from lkd_tune.evaluation.scoring import evaluate_model
from tests.support.families import config_of, make_csv
from tests.support.tokenizers_of import modernbert, wordpiece

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A ModernBERT with byte-level tokens and a shallower DistilBERT with wordpieces, and data."""
    folder = tmp_path_factory.mktemp("models")
    data = make_csv(folder, rows=64)
    with open(data, encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    made = [
        _make(folder / "teacher", "modernbert", modernbert(texts, 300), num_hidden_layers=3),
        _make(folder / "small", "distilbert", wordpiece(texts, 60), n_layers=2),
    ]
    return (*made, data, texts)


def _make(folder, family, tokenizer, **options):
    torch.manual_seed(1)
    config = config_of(
        family, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **options
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _spec(models, losses, **more):
    teacher, small, data, _ = models
    tree = {
        "task": {"name": "cats", "train": data, "dev": data, "max_length": 40},
        "teacher": teacher,
        "student": {"depth": 2, "init": small},
        "layer_map": {"word": (0, 1, 3), "layer": (0, 1, 3)},
        "losses": losses,
        "train": {"steps": 20, "batch_size": 16, "lr": 2e-3, "evaluations": 2},
    }
    return TrialSpec.model_validate(tree | more)


@pytest.mark.parametrize("source", ["stored", "live"])
def test_each_row_has_the_teacher_s_logits_under_its_own_tokenizer(tmp_path, models, source):
    teacher, _, _, texts = models
    more = {} if source == "stored" else {"targets": {"source": "live"}}
    rows = np.array([3, 9, 40])
    with Distillation(_spec(models, "soft_labels", **more), cache=tmp_path) as distillation:
        losses = distillation._losses
        assert type(losses._targets) is (StoredTargets if source == "stored" else LiveTeacher)
        batch = losses.read(rows, 0)
        found = losses._targets(losses._of_teacher(batch), Maps()).logits
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    for row, logits in zip(rows, found, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(texts[row], return_tensors="pt")).logits[0]
        torch.testing.assert_close(logits.cpu(), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("vocab", ["teacher", "trim"])
def test_it_learns_and_is_saved_with_its_own_tokenizer(tmp_path, models, vocab):
    _, small, data, texts = models
    student = {"depth": 2, "init": small, "vocab": vocab}
    spec = _spec(models, {"logits": {"alpha": 0.5}, "wr_pair": 0, "wr_triple": 0, "ltr_pair": 0,
                          "ltr_triple": 0}, student=student)  # fmt: skip
    first, last = (each for _, each in distill_locally(spec, to=tmp_path / "student"))
    assert last.losses["logits"] < first.losses["logits"]
    ours, theirs = (AutoTokenizer.from_pretrained(each) for each in (tmp_path / "student", small))
    if vocab == "teacher":
        assert ours.get_vocab() == theirs.get_vocab()
    assert ours.tokenize(texts[0]) == theirs.tokenize(texts[0])
    task = TaskSettings(name="cats", train=data, dev=data, max_length=40)
    assert evaluate_model(str(tmp_path / "student"), task)["dev"] == last.metrics


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ("ckd", "words are compared by wr_pair, wr_triple, ltr_pair, ltr_triple"),
        ({"recipe": "soft_labels", "hidden": 1}, "words are compared by hidden"),
        ("minilm", "words are compared by attention"),
    ],
)
def test_a_trial_that_compares_words_is_refused(tmp_path, models, losses, expected):
    with pytest.raises(SpecError) as error:
        Distillation(_spec(models, losses), cache=tmp_path)
    (problem,) = error.value.problems
    assert problem.key == "student.init"
    assert expected in problem.message


def test_augmented_text_is_refused(tmp_path, models):
    data = models[2]
    task = {"name": "cats", "train": data, "dev": data, "max_length": 40, "augment": {}}
    with pytest.raises(SpecError, match=r"task\.augment replaces words of the teacher"):
        Distillation(_spec(models, "soft_labels", task=task), cache=tmp_path)


def test_text_without_labels_has_the_same_rows_in_both_tokenizers(tmp_path, models):
    data = models[2]
    more = tmp_path / "more.csv"
    more.write_text("text\nthe very good dogs the dogs\ncats cats cats\n")
    task = {"name": "cats", "train": data, "dev": data, "max_length": 40, "unlabelled": str(more)}
    spec = _spec(models, "soft_labels", task=task)
    text = load_trial_text(spec, torch.device("cpu"), tmp_path / "cache")
    assert len(text.tokens) == len(text.teacher_tokens) == 64 + 2
    for row in (3, 64, 65):
        ours, theirs = (
            tokenizer.decode(tokens.ids[tokens.starts[row] : tokens.starts[row + 1]], True)
            for tokenizer, tokens in (
                (text.tokenizer, text.tokens),
                (AutoTokenizer.from_pretrained(models[0]), text.teacher_tokens),
            )
        )
        assert ours == theirs
    with Distillation(spec, cache=tmp_path / "cache") as distillation:
        assert next(distillation).losses["logits"] > 0


def test_a_bad_example_is_named_by_its_row(tmp_path, models, monkeypatch):
    spec = _spec(models, "soft_labels", targets={"source": "live"})
    read = LiveTeacher.__call__

    def call(self, batch, maps):
        targets = read(self, batch, maps)
        targets.logits[torch.from_numpy(batch.examples == 5)] = torch.nan
        return targets

    monkeypatch.setattr(LiveTeacher, "__call__", call)
    with (
        Distillation(spec, cache=tmp_path) as distillation,
        pytest.raises(RuntimeError, match="row 6"),
    ):
        list(distillation)
