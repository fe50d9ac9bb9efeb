"""The difficulty of the generated acceptability task, for three models; and its shipped teacher.

Number to look at: Matthews on test. The teacher of `layer_map.yaml` must be clearly better than a
bag of words and a BERT with one layer. --write saves that teacher; the one that is shipped lies in
search_spaces/teachers. The same seed gives another one on another kind of CPU, as rounding differs.

    python benchmarks/data/embedded_task.py [--seed 0] [--write DIR]
"""

from __future__ import annotations

import argparse
import shutil
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

_ARCHITECTURE = Architecture(
    layers=6, hidden_size=64, heads=4, intermediate_size=128, dropout=0.0, init_std=0.05
)
_TRAINING = TeacherTraining(
    architecture=_ARCHITECTURE,
    steps=5000,
    batch_size=32,
    lr=1e-3,
    beta2=0.98,
    warmup=0.1,
    weight_decay=0.01,
    evaluations=6,
)


def bag_of_words(train: Split, test: Split) -> float:
    """Returns Matthews of a logistic regression on the counts of words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import matthews_corrcoef

    counts = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000).fit(counts.fit_transform(train.text), train.label)
    return float(matthews_corrcoef(test.label, model.predict(counts.transform(test.text))))


def bert(name: str, task: TaskSettings, training: TeacherTraining, cache: Path) -> Path:
    """Prints Matthews on dev and test of a BERT that is trained here, and returns its folder."""
    begin = time.perf_counter()
    folder = train_teacher(task, training, cache=cache)
    seconds = time.perf_counter() - begin
    found = evaluate_model(str(folder), task, splits=("dev", "test"), cache=cache)
    dev, test = (found[split]["matthews"] for split in ("dev", "test"))
    print(f"{name:<16} {dev:.3f} {test:.3f}  {seconds:.0f} s", flush=True)
    return folder


def main() -> None:
    """Prints one line for each model: Matthews on dev, on test, and the time of its training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the teacher's training")
    parser.add_argument("--write", type=Path, help="folder for the teacher")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load_space(find_space("layer_map.yaml")).settings.task
    train, dev, test = (load_split(task, split) for split in ("train", "dev", "test"))
    print(f"{'':<16} dev   test")
    print(f"{'bag of words':<16} {bag_of_words(train, dev):.3f} {bag_of_words(train, test):.3f}")
    teacher = _TRAINING.model_copy(update={"seed": arguments.seed})
    one_layer = _ARCHITECTURE.model_copy(update={"layers": 1})
    with tempfile.TemporaryDirectory() as cache:
        shallow = teacher.model_copy(update={"architecture": one_layer})
        bert("1-layer BERT", task, shallow, Path(cache))
        folder = bert("6-layer teacher", task, teacher, Path(cache))
        if arguments.write is not None:
            shutil.copytree(folder, arguments.write, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
