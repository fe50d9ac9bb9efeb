"""The lines of Python in a student's card do what scoring does."""

import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import load_split
from lkd_tune.data.tasks.extractive_summary import choose_sentences
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.build import name_labels
from lkd_tune.evaluation.scoring import predict
from lkd_tune.export.usage import usage
from lkd_tune.models.loading import auto_model, load_config, load_model, load_tokenizer, save_model
from tests.support.families import CONFIGS, make_classifier
from tests.support.kinds_data import make_model, make_task


def test_a_classifier_is_loaded():
    task = TaskSettings(name="cola")
    assert "import AutoModelForSequenceClassification, AutoTokenizer" in usage(task)
    assert 'pipeline("text-classification", model=FOLDER)' in usage(task)
    assert "import torch" not in usage(task)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_summary_is_made_as_in_scoring(tmp_path, family):
    # Too short for all five sentences of a document.
    task = make_task(tmp_path / "data", "extractive_summary", rows=6)
    task = task.model_copy(update={"max_length": 22})
    kind, folder = kind_of(task), str(tmp_path / "student")
    tokenizer = load_tokenizer(make_classifier(tmp_path / "t", family))
    torch.manual_seed(0)
    model = auto_model(kind.head).from_config(CONFIGS[family](num_labels=2, initializer_range=1.0))
    save_model(model, tokenizer, tmp_path / "student")
    tokens = load_tokens(task, "dev", tokenizer, cache=tmp_path / "cache")
    outputs = predict(load_model(folder, kind.head), kind, tokens, torch.device("cpu"))
    chosen = choose_sentences(outputs, tokens, task.sentences)
    assert len(np.unique(chosen)) > 2
    lines = usage(task).replace("FOLDER", repr(folder))
    for document, numbers in zip(
        load_split(task, "dev", cache=tmp_path / "cache").text, chosen, strict=True
    ):
        given = 'sentences = ["The first sentence of a document.", "The second one."]'
        assert given in lines
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(lines.replace(given, f"sentences = {document!r}"), {})
        assert printed.getvalue().strip() == " ".join(document[i] for i in numbers)


@pytest.mark.parametrize("pair", [None, "second"])
@pytest.mark.parametrize("kind", ["classification", "regression", "multi_label"])
def test_the_pipeline_gives_what_the_model_gives(tmp_path, kind, pair):
    task = make_task(tmp_path / "data", kind, rows=8)
    student = _student(tmp_path / "student", task)
    task = task.model_copy(update={"columns": task.columns.model_copy(update={"pair": pair})})
    texts = ("One text.", "Another.") if pair else ("A text.",)
    with torch.no_grad():
        tokens = load_tokenizer(student)(*texts, return_tensors="pt", max_length=24)
        logits = load_model(student, "SequenceClassification")(**tokens).logits[0]
    expected = {
        "classification": logits.softmax(-1).max(),
        "regression": logits[0],
        "multi_label": logits.sigmoid().max(),
    }[kind]
    (found, *_) = _flat(_printed(usage(task), student))
    assert found["score"] == pytest.approx(float(expected), abs=1e-5)


def test_the_pipeline_of_a_tagger_and_of_masked_words_run(tmp_path):
    for kind in ("tagging", "masked_lm"):
        task = make_task(tmp_path / kind / "data", kind, rows=8)
        found = _printed(usage(task), _student(tmp_path / kind / "student", task))
        assert isinstance(found, list)


def _student(folder, task):
    """Returns the folder of a model as the engine saves students: it says how labels are read."""
    make_model(folder, task)
    config = load_config(str(folder))
    name_labels(config, SimpleNamespace(task=task), folder.parent / "cache")
    config.save_pretrained(folder)
    return str(folder)


def _printed(lines, folder):
    """Runs the lines of a card, and returns what they print."""
    printed = []
    exec(lines.replace("FOLDER", repr(folder)), {"print": printed.append})
    return printed[0]


def _flat(found):
    """Returns a list of answers: that of a pair comes alone, several labels' come one deeper."""
    while not (isinstance(found, list) and isinstance(found[0], dict)):
        found = [found] if isinstance(found, dict) else found[0]
    return found
