"""The best student that `Trainer.hyperparameter_search` of transformers finds on a task.

Numbers to look at: the best score on dev of each seed, against that of `lkd-tune search` over the
same space with the same teacher and as many trials. The Trainer does not distil: a trial takes
evenly spaced layers of the teacher, as many as the space allows, and fine-tunes them on the labels.
Optuna searches depth and learning rate, and may stop a trial at a quarter or half of its steps.

    pip install accelerate   # the Trainer asks for it
    python benchmarks/tuning/trainer_search.py [--space layer_map.yaml] [--set …] [--seeds 3]

Of the space it reads task, teacher, depths, train.lr, steps and the number of trials.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from typing import Any

import optuna
import transformers
from transformers import Trainer, TrainingArguments

from lkd_tune.config.read_space import load_space
from lkd_tune.config.settings.layer_map import preset_map
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.shipped import find_space
from lkd_tune.config.space import SearchSpace
from lkd_tune.data.loading import load_split
from lkd_tune.data.tasks.registry import kind_of
from lkd_tune.data.tokenize import load_tokens
from lkd_tune.distillation.teacher import train_teacher
from lkd_tune.files.cache import cache_dir
from lkd_tune.models.loading import load_model, load_tokenizer, read_depth
from lkd_tune.models.student import build_student


def main() -> None:
    """Prints the best score of each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--space", default="layer_map.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = load_space(find_space(given.space), given.set)
    for seed in range(given.seeds):
        began = time.monotonic()
        best, stopped = search(space, seed)
        settings = {name: f"{value:.3g}" for name, value in best.hyperparameters.items()}
        print(
            f"seed {seed}: best {space.settings.task.metric} {best.objective:.4f} with {settings}, "
            f"{stopped} trials stopped early, {time.monotonic() - began:.0f} s",
            flush=True,
        )


def search(space: SearchSpace, seed: int) -> tuple[Any, int]:
    """Returns the Trainer's best run, and the number of trials that Optuna has stopped early."""
    settings, lr = space.settings, space.distributions()["train.lr"]
    task, train, steps = settings.task, settings.train, settings.train.steps
    assert steps is not None
    teacher = _teacher(space)
    depths, layers, tokenizer = space.depths(), read_depth(teacher), load_tokenizer(teacher)
    loaded, kind = load_model(teacher), kind_of(task)
    dev = load_tokens(task, "dev", tokenizer, cache=cache_dir())

    def rows(split: str) -> list[dict[str, Any]]:
        found = load_split(task, split)
        texts = [found.text, *([found.pair] if found.pair else [])]
        encoded = tokenizer(*texts, truncation=True, max_length=task.max_length)
        return [
            {**{name: encoded[name][i] for name in encoded}, "labels": label}
            for i, label in enumerate(found.label)
        ]

    def build(trial: Any) -> Any:
        depth = depths[-1] if trial is None else trial.suggest_int("depth", depths[0], depths[-1])
        start = preset_map("skip", layers, depth)[1:]
        return build_student(StudentSettings(depth=depth), loaded, start, loaded.num_labels)

    def draw(trial: Any) -> dict[str, Any]:
        return {"learning_rate": lr.draw("learning_rate", trial)}

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=train.batch_size,
            warmup_steps=int(train.warmup * steps),
            weight_decay=train.weight_decay,
            eval_strategy="steps",
            eval_steps=steps // 4,
            save_strategy="no",
            per_device_eval_batch_size=64,
            seed=seed,
            disable_tqdm=True,
            report_to=[],
        )
        trainer = Trainer(
            model_init=build,
            args=arguments,
            train_dataset=rows("train"),
            eval_dataset=rows("dev"),
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda answers: kind.score(answers.predictions, dev),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        storage = optuna.storages.InMemoryStorage()

        def objective(metrics: dict[str, float]) -> float:
            return metrics[f"eval_{task.metric}"]

        best = trainer.hyperparameter_search(
            hp_space=draw,
            compute_objective=objective,
            n_trials=settings.search.trials,
            direction="maximize",
            backend="optuna",
            sampler=optuna.samplers.TPESampler(seed=seed),
            storage=storage,
            study_name="trainer",
        )
    trials = optuna.load_study(study_name="trainer", storage=storage).trials
    return best, sum(trial.state == optuna.trial.TrialState.PRUNED for trial in trials)


def _teacher(space: SearchSpace) -> str:
    """Returns the folder or hub id of the space's teacher, which is trained if need be."""
    settings = space.settings
    if settings.teacher.train is not None:
        return str(train_teacher(settings.task, settings.teacher.train))
    assert settings.teacher.model is not None
    return settings.teacher.model


if __name__ == "__main__":
    main()
