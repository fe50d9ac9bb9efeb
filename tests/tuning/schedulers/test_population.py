"""Population-based training: a real search, its copies, and a crash between its generations."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from optuna.trial import TrialState

from lkd_tune.config.distributions import Choice, Numbers
from lkd_tune.config.errors import SpecError
from lkd_tune.config.perturbation import perturbed_weights
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.distillation.run import distill_locally
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.tuning.ablation import without_each_term
from lkd_tune.tuning.schedulers import population
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.studies import open_study
from tests.support.tiny import make_space


class Crash(RuntimeError):
    """Stands for a kill at a moment that a signal would seldom meet."""


def make_population(folder, **search):
    return make_space(
        folder,
        student={"depth": {"int": [1, 2]}},
        losses={"wr_pair": {"loguniform": [0.1, 10]}, "ltr_triple": {"choice": [0, 1, 10]}},
        train={"lr": {"loguniform": [1e-4, 1e-2]}, "steps": 32, "evaluations": 3},
        search={"trials": 6, "scheduler": "pbt", "sampler": "random", **search},
    )


def crash(*_):
    raise Crash


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_a_population_that_crashes_between_two_generations(tmp_path, monkeypatch):
    space, run = make_population(tmp_path), RunFolder(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(population, "evolve", crash)
        with pytest.raises(Crash):
            run_search(space, run, quiet=True)
    waiting = run.read_trials()
    assert [r.name for r in waiting] == [f"{i:04d}" for i in range(6)]
    assert all(r.state == "running" and [m.step for m in r.measurements] == [8] for r in waiting)

    # Cut off while the copy is made, and done again: the same as in one go.
    cut = RunFolder(tmp_path / "cut")
    shutil.copytree(run.path, cut.path)
    with monkeypatch.context() as patched:
        patched.setattr(TrialFolder, "write_spec", crash)
        with pytest.raises(Crash):
            population.evolve(cut, space, 2)
    assert len(population.evolve(cut, space, 2)) == 1
    (line,) = population.evolve(run, space, 2)
    assert population.evolve(run, space, 2) == []
    assert _files(cut.path) == _files(run.path)

    # The worst is a copy of the best now: all of it, but for the weights from here on.
    ((name, copy),) = json.loads(run.population.read_text())["2"].items()
    scores = {r.name: r.score for r in waiting}
    assert scores[name] == min(scores.values())
    assert scores[copy["from"]] == max(scores.values())
    worst, best = run.read_trial(name), run.read_trial(copy["from"])
    (change,) = worst.spec.weight_changes
    assert worst.spec.model_copy(update={"weight_changes": ()}) == best.spec
    assert worst.measurements == best.measurements
    assert change.step == 8
    assert change.weights.keys() >= {"wr_pair"}
    assert f"trial {name} goes on as trial {best.name} with" in line

    # It goes on to its end. What is told of a copy does not teach the study.
    result = resume_search(run, quiet=True)
    assert result.trials == 6
    records = {r.name: r for r in run.read_trials()}
    assert {r.state for r in records.values()} == {"complete"}
    assert all([m.step for m in r.measurements] == [8, 16, 32] for r in records.values())
    copies = {r.name for r in records.values() if r.spec.weight_changes}
    assert name in copies
    for trial in open_study(run.study).trials:
        told = TrialState.PRUNED if trial.user_attrs["name"] in copies else TrialState.COMPLETE
        assert trial.state == told
    assert not list(run.path.glob("trials/*/checkpoint-*"))

    # A copy's spec, run by itself, is that trial again.
    again = [measured for _, measured in distill_locally(records[name].spec)]
    for repeated, measured in zip(again, records[name].measurements, strict=True):
        assert repeated.score == measured.score
        assert repeated.losses == pytest.approx(measured.losses, rel=1e-5)
    for term, spec in without_each_term(records[name].spec).items():
        assert getattr(spec.last_losses, term).weight == 0


def test_weights_stay_within_the_space():
    distributions = {
        "losses.wr_pair": Numbers(0.5, 8, log=True),
        "losses.wr_triple.weight": Numbers(1, 30, integer=True),
        "losses.ltr_pair": Choice((0, 1, 5, 20)),
        "losses.logits.temperature": Numbers(1, 4),
    }
    losses = LossSettings().with_weights({"ltr_pair": 20.0})
    seen = {"wr_pair": set(), "wr_triple": set(), "ltr_pair": set()}
    for seed in range(200):
        found = perturbed_weights(losses, distributions, random.Random(seed))
        assert found.keys() == seen.keys()
        for term, weight in found.items():
            seen[term].add(weight)
    assert {0.8, 1.25} < seen["wr_pair"]
    assert min(seen["wr_pair"]) >= 0.5
    assert max(seen["wr_pair"]) <= 8
    assert all(weight == int(weight) for weight in seen["wr_triple"])
    assert seen["ltr_pair"] == {1, 5, 20}  # a term that is on is not put out
    off = losses.with_weights({"ltr_pair": 0.0})
    assert "ltr_pair" not in perturbed_weights(off, distributions, random.Random(0))


def test_what_a_population_needs_is_told(tmp_path):
    with pytest.raises(SpecError, match="pbt needs a population of at least 4 trials"):
        make_population(tmp_path, trials=3)
    with pytest.raises(SpecError, match="pbt changes loss weights, and none is searched"):
        make_space(tmp_path, losses={"wr_pair": 1}, search={"scheduler": "pbt"})
    with pytest.raises(SpecError, match="pbt changes weights at evaluations before the last"):
        make_space(tmp_path, train={"evaluations": 1}, search={"scheduler": "pbt"})


def _files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parts[-2] != "ray" and "ray" not in path.parts
    }
