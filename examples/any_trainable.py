"""The searcher for something that is no distillation: it needs Ray Tune and Optuna alone.

    python examples/any_trainable.py

A network learns to tell handwritten digits apart. Trials that fall behind are stopped, those with
too many weights count as inadmissible, and all of it is in `digits.journal`: the command, repeated
after Ctrl-C or a crash, goes on, and once it is done only shows the best.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from lkd_tune.tuning.study.ask_tell import AskTellSearcher

EPOCHS, MOST_WEIGHTS = 8, 5_000


def draw(trial: optuna.Trial) -> dict[str, Any]:
    """Returns the settings of a trial; the second layer's width exists only if there is one."""
    layers = [trial.suggest_int("width", 8, 128, log=True)]
    if trial.suggest_categorical("layers", [1, 2]) == 2:
        layers.append(trial.suggest_int("second_width", 8, 128, log=True))
    return {"layers": layers, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}


class Training(tune.Trainable):
    """A step is an epoch."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begins a training."""
        images, digits = load_digits(return_X_y=True)
        self._data = train_test_split(images / 16, digits, random_state=0)
        self._model = MLPClassifier(config["layers"], learning_rate_init=config["lr"])
        self._epoch = 0

    def step(self) -> dict[str, Any]:
        """Trains an epoch and returns the accuracy on what was held out."""
        train, dev, train_digits, dev_digits = self._data
        self._model.partial_fit(train, train_digits, classes=range(10))
        self._epoch += 1
        return {
            "epoch": self._epoch,
            "accuracy": self._model.score(dev, dev_digits),
            "weights": sum(matrix.size for matrix in self._model.coefs_),
            "done": self._epoch == EPOCHS,
        }


def main(folder: Path, trials: int = 12) -> optuna.Study:
    """Searches, or goes on with what is in the folder."""
    study = optuna.create_study(
        study_name="digits",
        direction="maximize",
        storage=JournalStorage(JournalFileBackend(str(folder / "digits.journal"))),
        sampler=optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True),
        load_if_exists=True,
    )
    searcher = AskTellSearcher(
        study,
        draw,
        metrics=["accuracy"],
        step="epoch",
        total=EPOCHS,
        trials=trials,
        constraints=lambda result: {"weights": result["weights"] - MOST_WEIGHTS},
    )
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric="accuracy", mode="max", grace_period=1, max_t=EPOCHS
    )
    tune.run(
        Training,
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,
        max_concurrent_trials=2,
        storage_path=str(folder.absolute()),
        name="digits",
        verbose=0,
    )
    return study


if __name__ == "__main__":
    ray.init("local")
    best = main(Path()).best_trial
    print(f"accuracy {best.value:.3f} with {best.user_attrs['config']}")
