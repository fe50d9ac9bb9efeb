"""The searcher by itself, as somebody with Ray and Optuna alone would use it."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from lkd_tune.tuning.study.ask_tell import AskTellSearcher


class Curve(tune.Trainable):
    """Its score grows with each epoch, its cost with its width."""

    def setup(self, config):
        self.config, self.epoch = config, 0

    def step(self):
        self.epoch += 1
        return {
            "epoch": self.epoch,
            "score": self.config["slope"] * self.epoch,
            "cost": float(self.config.get("width", 1)),
            "done": self.epoch == 4,
        }

    def reset_config(self, new_config):
        self.setup(new_config)
        return True


def open_study(path, directions=("maximize",)):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path / "journal"))),
        study_name="curves",
        directions=directions,
        sampler=optuna.samplers.RandomSampler(seed=0),
        load_if_exists=True,
    )


def run(searcher, folder, scheduler=None, trials=8):
    tune.run(
        Curve,
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=trials,
        max_concurrent_trials=1,
        reuse_actors=True,
        storage_path=str(folder),
        verbose=0,
    )


def asha(metric="score"):
    return AsyncHyperBandScheduler(
        time_attr="epoch", metric=metric, mode="max", grace_period=1, reduction_factor=2, max_t=4
    )


@pytest.mark.usefixtures("two_cores")
def test_stopped_trials_are_pruned_and_complete_ones_are_not(tmp_path):
    study = open_study(tmp_path)

    def draw(trial):  # local and conditional: what OptunaSearch can't store or express
        config = {"slope": trial.suggest_float("slope", 0, 1)}
        if config["slope"] > 0.5:
            config["width"] = trial.suggest_int("width", 1, 8)
        return config

    limit = 4
    run(
        AskTellSearcher(
            study, draw, metrics=["score"], step="epoch", total=4,
            constraints=lambda result: {"cost": result["cost"] - limit},
        ),
        tmp_path,
        asha(),
    )  # fmt: skip
    told = open_study(tmp_path).trials
    assert {trial.state for trial in told} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in told:
        slope = trial.params["slope"]
        reached = 4 if trial.state == TrialState.COMPLETE else trial.last_step
        assert trial.value == pytest.approx(slope * reached)
        assert [*trial.intermediate_values] == [*range(1, reached + 1)]
        assert trial.constraints == {"cost": trial.params.get("width", 1) - limit}
    assert any(trial.constraints["cost"] > 0 for trial in told)


@pytest.mark.usefixtures("two_cores")
def test_several_objectives_with_a_scheduler(tmp_path):
    study = open_study(tmp_path, ["maximize", "minimize"])
    searcher = AskTellSearcher(
        study,
        lambda trial: {
            "slope": trial.suggest_float("slope", 0, 1),
            "width": trial.suggest_int("width", 1, 8),
        },
        metrics=["score", "cost"],
        step="epoch",
        total=4,
    )
    run(searcher, tmp_path, asha())
    states = {trial.state for trial in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    # What a stopped trial reached, and when, is known.
    for trial in study.get_trials(states=[TrialState.PRUNED]):
        scores, slope = trial.user_attrs["scores"], trial.params["slope"]
        assert 0 < len(scores) < 4
        assert scores == {str(epoch): slope * epoch for epoch in range(1, len(scores) + 1)}
    # No score at a quarter of the epochs is on the front.
    assert all(trial.values[0] == 4 * trial.params["slope"] for trial in study.best_trials)


def test_a_searcher_made_again_gives_out_what_had_not_ended(tmp_path):
    def draw(trial):
        return {"slope": trial.suggest_float("slope", 0, 1)}

    settings = {"metrics": ["score"], "step": "epoch", "total": "epochs"}
    before = AskTellSearcher(open_study(tmp_path), draw, **settings)
    configs = [before.suggest(f"t{i}") for i in range(3)]
    before.on_trial_result("t0", {"epoch": 1, "score": 0.1})
    before.on_trial_complete("t1", {"epoch": 4, "epochs": 4, "score": 0.7})
    before.on_trial_complete("t2")  # taken back
    open_study(tmp_path).ask()  # cut off before its config was drawn

    study = open_study(tmp_path)
    after = AskTellSearcher(study, draw, **settings)
    again = [after.suggest(f"u{i}") for i in range(3)]
    assert again[:2] == [configs[0], configs[2]]
    assert len(study.trials) == 5  # the third is new
    # A restored trial reports again what is known, and goes on.
    for epoch in (1, 2):
        after.on_trial_result("u0", {"epoch": epoch, "score": 0.1 * epoch})
    after.on_trial_complete("u0", error=True)
    states = [trial.state for trial in study.trials]
    assert states[:2] == [TrialState.FAIL, TrialState.COMPLETE]
    assert states[3] == TrialState.FAIL
    assert study.trials[0].intermediate_values == {1: 0.1, 2: 0.2}


def test_a_restarted_search_draws_only_what_is_left(tmp_path):
    def draw(trial):
        return {"slope": trial.suggest_float("slope", 0, 1)}

    settings = {"metrics": ["score"], "step": "epoch", "total": 4, "trials": 5}
    before = AskTellSearcher(open_study(tmp_path), draw, **settings)
    for i in range(3):
        before.suggest(f"t{i}")
    before.on_trial_complete("t0", {"epoch": 4, "score": 0.7})
    after = AskTellSearcher(open_study(tmp_path), draw, **settings)
    again = [after.suggest(f"u{i}") for i in range(5)]
    assert len([config for config in again if config != after.FINISHED]) == 4
    assert again[4] == after.FINISHED


def test_a_score_that_is_no_number_is_a_failure(tmp_path):
    study = open_study(tmp_path)
    searcher = AskTellSearcher(study, lambda _: {}, metrics=["score"], step="epoch", total=4)
    searcher.suggest("a")
    searcher.on_trial_complete("a", {"epoch": 4, "score": float("nan")})
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


# What both can do: complete trials, one objective and several, a sampler that learns from them.
@pytest.mark.parametrize(
    ("sampler", "directions"),
    [
        (optuna.samplers.RandomSampler, ["maximize"]),
        (optuna.samplers.TPESampler, ["maximize"]),
        (optuna.samplers.TPESampler, ["maximize", "minimize"]),
        (optuna.samplers.NSGAIISampler, ["maximize", "minimize"]),
    ],
)
def test_it_suggests_what_optuna_search_does(tmp_path, sampler, directions):
    def draw(trial):
        return {
            "slope": trial.suggest_float("slope", 0, 1),
            "width": trial.suggest_int("width", 1, 64, log=True),
            "kind": trial.suggest_categorical("kind", ["a", "b"]),
        }

    def space(trial):
        draw(trial)

    metrics = ["score", "cost"][: len(directions)]
    study = optuna.create_study(directions=directions, sampler=sampler(seed=0))
    ours = AskTellSearcher(study, draw, metrics=metrics, step="epoch", total=4)
    theirs = OptunaSearch(
        space,
        metric=metrics if len(metrics) > 1 else metrics[0],
        mode=["max", "min"] if len(metrics) > 1 else "max",
        sampler=sampler(seed=0),
    )
    for i in range(30):
        config = ours.suggest(f"t{i}")
        assert config == theirs.suggest(f"t{i}")
        result = {
            "epoch": 4,
            "training_iteration": 4,
            "score": -abs(config["slope"] - 0.3) - (config["kind"] == "b"),
            "cost": float(config["width"]),
        }
        ours.on_trial_complete(f"t{i}", result)
        theirs.on_trial_complete(f"t{i}", result)


def test_metrics_have_to_fit_the_study(tmp_path):
    with pytest.raises(ValueError, match=r"1 direction\(s\), metrics 2"):
        AskTellSearcher(open_study(tmp_path), dict, metrics=["a", "b"], step="epoch", total=4)
