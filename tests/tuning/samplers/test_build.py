"""One exam for all samplers, through the searcher: they learn, and resume exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.search import Sampler, SearchSettings
from lkd_tune.config.source import parse_source
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.samplers.build import SAMPLERS, build_sampler
from lkd_tune.tuning.samplers.evolution import LayerMapEvolution
from lkd_tune.tuning.study.searcher import StudySearcher
from tests.support.studies import open_study
from tests.tuning.study.test_searcher import SPACE, drawn, result, searcher

# The grid ends with its space; it has tests of its own.
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name
    for name in SAMPLERS
    if name != "grid"
]
GOAL = (0, 2, 3, 7, 8, 12)  # the layer map that is to be found
MAPS = """
task: {name: tiny, train: train.csv, dev: dev.csv}
teacher: somewhere
student: {depth: 5}
layer_map: monotone
search: {trials: 60, seed: 1, recipes: [], sampler: %s}
"""


def with_sampler(text: str, sampler: str, trials: int) -> str:
    return text.replace("search: {trials: 8", f"search: {{sampler: {sampler}, trials: {trials}")


def run(search: StudySearcher, score: Callable[[TrialSpec], float], trials: int) -> list[TrialSpec]:
    specs = []
    for i in range(trials):
        config = search.suggest(f"t{i}")
        if config == search.FINISHED:
            break
        _, spec = drawn(config)
        specs.append(spec)
        search.on_trial_complete(f"t{i}", result(8, score(spec), "complete"))
    return specs


def test_every_sampler_of_the_settings_is_built():
    assert {*SAMPLERS} == {*get_args(Sampler)}
    for name in SAMPLERS:
        assert isinstance(build_sampler(SearchSettings(sampler=name), 0), BaseSampler)


@pytest.mark.parametrize("sampler", NAMES)
def test_a_resumed_search_draws_what_the_other_would_have_drawn(tmp_path, sampler):
    text = with_sampler(SPACE, sampler, 14)
    whole, cut = searcher(tmp_path / "whole", text), searcher(tmp_path / "cut", text)
    for i in range(14):
        expected = drawn(whole.suggest(f"t{i}"))
        if i in (3, 9):
            cut = searcher(tmp_path / "cut", text)
        assert drawn(cut.suggest(f"t{i}")) == expected
        for search in (whole, cut):
            search.on_trial_complete(f"t{i}", result(8, 0.1 * (i % 4), "complete"))


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cma", "evolution"])
def test_later_trials_score_better_than_chance(tmp_path, sampler):
    text = with_sampler(SPACE, sampler, 30).replace("depth: {int: [1, 3]}", "depth: 2")
    text = text.replace("loguniform: [0.1, 100]", "uniform: [0, 10]")
    specs = run(searcher(tmp_path, text), lambda spec: -abs(spec.losses.wr_pair.weight - 7), 30)
    late = [abs(spec.losses.wr_pair.weight - 7) for spec in specs[-10:]]
    assert sorted(late)[5] < 2.2  # by chance the median is 2.6 or so


def _found(folder: Path, sampler: str) -> list[int]:
    """Returns how many of the four free entries each trial's map shares with the goal."""
    space = build_space(parse_source(MAPS % sampler, "space.yaml"))
    search = StudySearcher(
        space, RunFolder(folder), teacher="somewhere", teacher_layers=12, common={}
    )
    shared = lambda spec: len({*spec.layer_map.word[1:-1]} & {*GOAL})  # noqa: E731
    return [shared(spec) for spec in run(search, shared, 60)]


def test_evolution_finds_layer_maps_sooner_than_chance(tmp_path):
    bred, drawn_at_random = _found(tmp_path / "e", "evolution"), _found(tmp_path / "r", "random")
    assert max(bred) == len(GOAL) - 2
    assert sum(bred[-20:]) > 1.5 * sum(drawn_at_random[-20:])


def test_a_moved_layer_goes_to_a_neighbour():
    sampler = LayerMapEvolution(seed=0)
    keys = {f"layer_map.word.key.{t}": t / 10 for t in range(1, 8)}
    seen = set()
    for _ in range(60):
        sampler._child = dict(keys)
        sampler._move_layer()
        changed = [t for t in range(1, 8) if sampler._child[f"layer_map.word.key.{t}"] != t / 10]
        assert sorted(sampler._child.values()) == sorted(keys.values())
        if changed:
            assert changed[1] - changed[0] == 1
            seen.add(tuple(changed))
    assert len(seen) == 6


def test_evolution_serves_any_study_of_several_objectives():
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=LayerMapEvolution(seed=2, n_startup_trials=10)
    )

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0.01, 100, log=True)
        n = trial.suggest_int("n", 1, 9)
        kind = trial.suggest_categorical("kind", ["good", "bad"])
        return -abs(x - 3) - (kind == "bad"), n

    study.optimize(objective, n_trials=80)
    late = study.trials[40:]
    assert sum(trial.params["kind"] == "good" for trial in late) > 30
    assert min(abs(trial.params["x"] - 3) for trial in late) < 0.3


GRID = """
task: {name: tiny, train: train.csv, dev: dev.csv}
teacher: somewhere
student: {depth: {int: [1, 2]}}
layer_map: monotone
losses:
  wr_pair: {choice: [0, {weight: {choice: [1, 2]}, distance: cosine}]}
search: {trials: 100, sampler: grid, recipes: []}
"""


def test_a_grid_has_each_point_once_and_ends(tmp_path):
    search = searcher(tmp_path, GRID)
    specs = run(search, lambda _: 0.5, 100)
    points = {(s.layer_map.word, s.losses.wr_pair.weight) for s in specs}
    # Depth 1 has one map of 6 layers with both ends matched, depth 2 has five.
    assert len(specs) == len(points) == (1 + 5) * 3


def test_a_grid_resumes(tmp_path):
    first = run(searcher(tmp_path, GRID), lambda _: 0.5, 7)
    second = run(searcher(tmp_path, GRID), lambda _: 0.5, 100)
    assert len({spec.digest() for spec in [*first, *second]}) == 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wr_pair: {choice": "wr_triple: {loguniform: [1, 2]}\n  wr_pair: {choice"},
         "losses.wr_triple is continuous"),
        ({"student: {depth: {int: [1, 2]}}": "student: {depth: 8}",
          "monotone": "free"}, "points; grid takes at most"),
    ],
)  # fmt: skip
def test_a_grid_needs_a_space_that_it_can_go_through(change, message):
    text = GRID
    for old, new in change.items():
        text = text.replace(old, new)
    with pytest.raises(SpecError, match=message):
        build_space(parse_source(text, "space.yaml")).check_teacher(12)


def test_cma_refuses_several_objectives():
    text = GRID.replace("grid", "cma") + "objectives: [score, parameters]\n"
    with pytest.raises(SpecError, match="cma supports only one objective; use tpe"):
        build_space(parse_source(text, "space.yaml"))


def test_a_repeated_draw_is_no_trial(tmp_path):
    run(searcher(tmp_path, GRID.replace("grid", "random")), lambda _: 0.5, 100)
    states = [trial.state for trial in open_study(tmp_path / "study.journal").trials]
    assert states.count(TrialState.COMPLETE) == 18
    assert states.count(TrialState.FAIL) > 0
