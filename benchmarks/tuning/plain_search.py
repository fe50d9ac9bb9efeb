"""A search as plain Ray Tune runs it: each trial has a new process and runs the whole recipe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec


class Drawing:
    """The define-by-run space of OptunaSearch; a class, as a local function can't be pickled."""

    def __init__(self, space: SearchSpace, teacher: str, layers: int):
        self._space, self._teacher, self._layers = space, teacher, layers

    def __call__(self, trial: Any) -> dict[str, str]:
        """Returns the trial's spec, for Tune to add to its config."""
        spec = self._space.draw(
            trial,
            teacher=self._teacher,
            teacher_layers=self._layers,
            seed=self._space.settings.search.seed,
        )
        return {"spec": spec.to_json()}


def plain_trial(config: dict[str, Any]) -> None:
    """Trains one student with a live teacher and padding to the full length."""
    from ray import tune

    torch.set_num_threads(1)
    spec = TrialSpec.model_validate_json(config["spec"])
    tune.report({"score": train(spec, Path(config["cache"]), fast=config["fast_losses"])})


def terms_from_distances(
    student: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    window: int,
) -> dict[str, torch.Tensor]:
    """Returns the terms by name, each 0-dim, as `direct_terms` does."""
    from lkd_tune.losses import ckd as losses
    from lkd_tune.losses.logits import soft_label_loss

    states = student, teacher, mask
    return {
        "wr_pair": losses.word_relation_pair(*states),
        "wr_triple": losses.word_relation_triple(*states, window=window),
        "ltr_pair": losses.layer_relation_pair(*states),
        "ltr_triple": losses.layer_relation_triple(*states),
        "logits": soft_label_loss(student_logits, teacher_logits),
    }


def train(spec: TrialSpec, cache: Path, *, fast: bool) -> float:
    """Returns the student's score on dev after the steps of its spec.

    Args:
        spec: What to train.
        cache: Folder of tokenised data.
        fast: Uses lkd-tune's losses. Otherwise each difference is materialised.
    """
    from benchmarks.losses.direct_losses import direct_terms
    from lkd_tune.data.tokenize import load_tokens
    from lkd_tune.data.types import Batch
    from lkd_tune.distillation.optimizer import build_optimizer
    from lkd_tune.evaluation.scoring import evaluate
    from lkd_tune.models.forward import forward
    from lkd_tune.models.loading import load_model, load_tokenizer
    from lkd_tune.models.student import build_student

    assert spec.teacher is not None
    assert spec.train.steps is not None
    device = torch.device("cuda" if spec.resources.gpus else "cpu")
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    torch.manual_seed(spec.seed)
    teacher = load_model(spec.teacher).to(device)
    tokenizer = load_tokenizer(spec.teacher)
    data = {name: load_tokens(spec.task, name, tokenizer, cache=cache) for name in ("train", "dev")}
    word, layer = spec.layer_map.word, spec.layer_map.layer
    assert word == layer != "random"
    student = build_student(spec.student, teacher, word[1:], 2)  # type: ignore[arg-type]
    student.to(device)
    optimizer, schedule = build_optimizer(student, spec.train, spec.train.steps, sharded=True)
    weights = {name: term.weight for name, term in spec.losses.terms()}
    temperature, window = spec.losses.logits.temperature, spec.losses.wr_triple.window
    rng = np.random.default_rng(spec.seed)
    terms_of = terms_from_distances if fast else direct_terms
    for _ in range(spec.train.steps):
        batch = data["train"].batch(
            rng.integers(0, len(data["train"]), spec.train.batch_size), device
        )
        more = spec.task.max_length - batch.ids.shape[1]
        ids, types, mask = (
            torch.nn.functional.pad(x, (0, more)) for x in (batch.ids, batch.types, batch.mask)
        )
        batch = Batch(ids, types, mask, batch.labels, batch.examples)
        with torch.no_grad(), half:
            theirs = forward(teacher, batch, hidden_states=True)
        with half:
            ours = forward(student, batch, hidden_states=True)
        terms = terms_of(
            torch.stack(ours.hidden_states, 1),
            torch.stack([theirs.hidden_states[i] for i in word], 1),
            mask,
            ours.logits / temperature,
            theirs.logits / temperature,
            window or spec.task.max_length,
        )
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), spec.train.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return evaluate(student, spec.task, data["dev"], device)[spec.task.metric]


def search_plainly(
    space: SearchSpace,
    teacher: str,
    layers: int,
    cache: Path,
    sampler: Any,
    folder: Path,
    *,
    fast: bool = False,
) -> list[tuple[float, float]]:
    """Returns (seconds since the start, score) of each trial as it ended."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    class Clock(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            ended.append((time.monotonic() - began, trial.last_result["score"]))

    ended: list[tuple[float, float]] = []
    resources = space.settings.resources
    began = time.monotonic()
    tune.Tuner(
        tune.with_resources(plain_trial, {"cpu": resources.cpus, "gpu": resources.gpus}),
        param_space={
            "cache": str(cache),
            "fast_losses": fast,
        },
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                Drawing(space, teacher, layers), metric="score", mode="max", sampler=sampler
            ),
            metric=None,
            num_samples=space.settings.search.trials,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder), name="plain", callbacks=[Clock()], verbose=0
        ),
    ).fit()
    return ended
