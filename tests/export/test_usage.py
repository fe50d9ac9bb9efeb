"""The lines of Python in a student's card do what scoring does."""

import contextlib
import io

import numpy as np
import pytest
import torch

from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import load_split
from lkd_tune.data.tasks.extractive_summary import choose_sentences
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.evaluation.scoring import predict
from lkd_tune.export.usage import usage
from lkd_tune.models.loading import auto_model, load_model, load_tokenizer, save_model
from tests.support.families import CONFIGS, make_classifier
from tests.support.kinds_data import make_task


def test_a_classifier_is_loaded():
    task = TaskSettings(name="cola")
    assert "import AutoModelForSequenceClassification, AutoTokenizer" in usage(task)
    assert "torch" not in usage(task)


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
