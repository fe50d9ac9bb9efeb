"""What may change when a run is resumed, and how differences are reported."""

from __future__ import annotations

import json

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space, load_space
from lkd_tune.config.source import parse_source
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.tuning.resume_rules import apply_changes, check_overrides, check_workers
from lkd_tune.tuning.tuner import write_space

TEXT = """
task: {name: tiny, train: train.csv, dev: dev.csv}
teacher: somewhere
losses: {wr_pair: {loguniform: [0.1, 100]}}
train: {lr: 1e-3}
search: {trials: 8}
"""


def space(**changes: str) -> SearchSpace:
    text = TEXT
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return build_space(parse_source(text, "mine.yaml"))


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder(tmp_path)
    write_space(run, space())
    return run


def test_the_same_file_changes_nothing(run):
    assert apply_changes(run, space(), allowed=False).tree == space().tree


def test_paths_are_compared_wherever_they_are_relative_to(run, tmp_path, monkeypatch):
    for folder in ("started", "elsewhere"):
        (tmp_path / folder).mkdir()
    for name in ("train.csv", "dev.csv"):
        (tmp_path / "started" / name).write_text("text,label\n")
    run.manifest.write_text(json.dumps({"cwd": str(tmp_path / "started")}))
    monkeypatch.chdir(tmp_path / "started")
    apply_changes(run, space(), allowed=False)
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = space(**{"train.csv": "../started/train.csv", "dev.csv": "../started/dev.csv"})
    apply_changes(run, moved, allowed=False)
    absolute = tmp_path / "started"
    written = space(**{"train.csv": f"{absolute}/train.csv", "dev.csv": f"{absolute}/dev.csv"})
    apply_changes(run, written, allowed=False)


def test_what_may_change_is_taken_over_if_allowed(run):
    changed = space(**{"trials: 8": "trials: 9, time_budget: 5"})
    with pytest.raises(SpecError) as refused:
        apply_changes(run, changed, allowed=False)
    assert [str(problem) for problem in refused.value.problems] == [
        "mine.yaml:6 search.trials: is 9 here, 8 in the run; --allow-changed applies it",
        "mine.yaml:6 search.time_budget: is 5 here, null in the run; --allow-changed applies it",
    ]
    taken = apply_changes(run, changed, allowed=True).settings.search
    assert (taken.trials, taken.time_budget) == (9, 5)


@pytest.mark.parametrize(
    ("written", "alike"),
    [
        ("teacher: somewhere", "teacher: {model: somewhere}"),
        ("search: {trials: 8}", "search: {trials: 8, sampler: tpe}"),
    ],
)
def test_what_is_written_in_another_way_is_no_change(run, written, alike):
    assert apply_changes(run, space(**{written: alike}), allowed=False).settings == space().settings


def test_limits_may_be_written_in_two_ways(tmp_path):
    listed, mapped = (
        build_space(parse_source(f"{TEXT}limits: {limits}\n", "mine.yaml"))
        for limits in ("[parameters <= 15e6]", "{parameters: 15e6}")
    )
    write_space(RunFolder(tmp_path), listed)
    assert apply_changes(RunFolder(tmp_path), mapped, allowed=False).settings == listed.settings


def test_a_teacher_may_be_placed_elsewhere(run):
    moved = space(**{"teacher: somewhere": "teacher: {model: somewhere, placement: cpu}"})
    assert apply_changes(run, moved, allowed=True).settings.teacher.placement == "cpu"


def test_confirmation_can_be_dropped(run):
    write_space(run, build_space(parse_source(TEXT + "confirm: {top: 2, seeds: 2}\n", "mine.yaml")))
    with pytest.raises(SpecError, match=r"confirm: is null here, {top: 2, seeds: 2} in the"):
        apply_changes(run, space(), allowed=False)
    assert apply_changes(run, space(), allowed=True).settings.confirm is None


def test_confirmation_can_be_added(run):
    changed = build_space(parse_source(TEXT + "confirm: {top: 2, seeds: 2}\n", "mine.yaml"))
    confirm = apply_changes(run, changed, allowed=True).settings.confirm
    assert confirm is not None
    assert (confirm.top, confirm.seeds) == (2, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 1e-3", "lr: 1e-4", "train.lr: is 0.0001 here, 0.001 in the run, and can't change"),
        (
            "[0.1, 100]",
            "[0.1, 10]",
            "wr_pair: is numbers 0.1 to 10, log .* numbers 0.1 to 100, log",
        ),
        (
            "{loguniform: [0.1, 100]}",
            "3",
            "losses.wr_pair: is {weight: 3.*} here, numbers 0.1 to",
        ),
        ("train: {lr: 1e-3}\n", "", "train.lr: is 5e-05 here, 0.001 in the run"),
    ],
)
def test_what_trials_differ_by_is_refused_even_if_changes_are_allowed(run, old, new, message):
    with pytest.raises(SpecError, match=message):
        apply_changes(run, space(**{old: new}), allowed=True)


def test_overrides_are_checked_alike():
    check_overrides(["search.trials=9", "confirm.top=2", "resources.workers=4"])
    with pytest.raises(SpecError, match="can't change in a resumed run"):
        check_overrides(["train.lr=1"])


def _with_trial(run: RunFolder, **train: int) -> None:
    spec = {
        "task": {"name": "own", "train": "a.csv", "dev": "b.csv", "max_length": 32},
        "teacher": "t",
    }
    maps = {"word": (0, 1), "layer": (0, 1)}
    trial = TrialSpec.model_validate(
        {**spec, "student": {"depth": 1}, "layer_map": maps, "train": train}
    )
    TrialFolder(run.trial("0000")).write_spec(trial)


def test_a_changed_number_of_workers_is_reported(run):
    _with_trial(run, batch_size=8)
    assert check_workers(run, load_space(run.space)) is None
    assert check_workers(run, load_space(run.space, ["resources.workers=4"])) == (
        "4 workers per trial from now on, 1 before; this applies to 1 unfinished trial, too"
    )


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"batch_size": 6}, "trial 0000 can't run with 4 workers: train.batch_size 6 can't be"),
        ({"tokens_per_batch": 255}, "tokens_per_batch 255 would give other batches; at least 256"),
    ],
)
def test_workers_that_can_not_share_a_trials_batches_are_refused(run, train, message):
    _with_trial(run, **train)
    with pytest.raises(SpecError, match=message):
        check_workers(run, load_space(run.space, ["resources.workers=4"]))
