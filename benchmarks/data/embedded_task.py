"""The difficulty of the generated acceptability task, for three models.

Number to look at: Matthews on test. The teacher of `layer_map.yaml` must be clearly better than a
bag of words and a BERT with one layer.

    python benchmarks/data/embedded_task.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.config.settings.teacher import Architecture, TeacherTraining
from lkd_tune.config.shipped import find_space
from lkd_tune.data.loading import load_split
from lkd_tune.data.types import Split
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.evaluation.scoring import evaluate_model


def bag_of_words(train: Split, test: Split) -> float:
    """Returns Matthews of a logistic regression on the counts of words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import matthews_corrcoef

    counts = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000).fit(counts.fit_transform(train.text), train.label)
    return float(matthews_corrcoef(test.label, model.predict(counts.transform(test.text))))


def bert(task: TaskSettings, training: TeacherTraining, cache: Path) -> float:
    """Returns Matthews on test of a BERT trained as the shipped teacher is."""
    folder = train_teacher(task, training, cache=cache)
    return evaluate_model(str(folder), task, splits=("test",), cache=cache)["test"]["matthews"]


def main() -> None:
    """Prints one line for each model."""
    torch.set_num_threads(1)
    settings = load_space(find_space("layer_map.yaml")).settings
    task, training = settings.task, settings.teacher.train
    assert training is not None  # it is a space that trains its teacher
    assert training.architecture is not None
    one_layer = Architecture(**{**training.architecture.model_dump(), "layers": 1})
    shallow = training.model_copy(update={"architecture": one_layer})
    print(
        f"bag of words     {bag_of_words(load_split(task, 'train'), load_split(task, 'test')):.3f}"
    )
    with tempfile.TemporaryDirectory() as cache:
        for name, recipe in (("1-layer BERT", shallow), ("6-layer teacher", training)):
            begin = time.perf_counter()
            score = bert(task, recipe, Path(cache))
            print(f"{name:<16} {score:.3f}  {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
