"""The searcher with a real study: what it draws, what it reports, what survives a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.source import parse_source
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder, append_measurement
from lkd_tune.records.trial_record import LABELS_ALONE, outcome_of
from lkd_tune.tuning.study.journal import next_number
from lkd_tune.tuning.study.searcher import StudySearcher
from tests.support.studies import open_study

SPACE = """
task: {name: tiny, train: train.csv, dev: dev.csv}
teacher: somewhere
student: {depth: {int: [1, 3]}}
layer_map: monotone
losses:
  wr_pair: {loguniform: [0.1, 100]}
  wr_triple: {choice: [0, {weight: {loguniform: [1, 1000]}, window: {choice: [5, 9]}}]}
search: {trials: 8, seed: 3}
"""
SMALL = """
task: {name: tiny, train: train.csv, dev: dev.csv}
teacher: somewhere
student: {depth: 2}
losses: {wr_pair: {choice: [1, 2, 3]}}
search: {trials: 8}
"""


def measurement(step: int, score: float, total: int = 8) -> Measurement:
    return Measurement(
        step=step,
        total_steps=total,
        score=score,
        metrics={"accuracy": score},
        losses={"total": 1.0},
        parameters=1,
        train_s=step / 4,
        samples_per_s=1.0,
        peak_memory_gib=0.1,
    )


def result(step: int, score: float, state: str = "running") -> dict[str, Any]:
    return {
        "state": state,
        "wall_s": 1.0,
        "worker_s": 1.0,
        "error": None,
        "step": step,
        "score": score,
        "measurement": measurement(step, score).model_dump_json(),
    }


def space(text: str = SPACE) -> SearchSpace:
    return build_space(parse_source(text, "space.yaml"))


def searcher(folder: Path, text: str = SPACE) -> StudySearcher:
    return StudySearcher(
        space(text),
        RunFolder(folder),
        teacher="somewhere",
        teacher_layers=6,
        common={"run": str(folder)},
    )


def drawn(config: dict[str, Any] | str) -> tuple[str, TrialSpec]:
    assert isinstance(config, dict)
    return config["name"], TrialSpec.model_validate_json(config["spec"])


def states(folder: Path) -> list[TrialState]:
    return [trial.state for trial in open_study(folder / "study.journal").trials]


def test_trials_have_names_in_order_and_their_spec_on_disk(tmp_path):
    search = searcher(tmp_path)
    for i in range(8):
        name, spec = drawn(search.suggest(f"t{i}"))
        assert name == f"{i:04d}"
        assert RunFolder(tmp_path).read_trial(name).spec == spec
        assert spec.seed == 3
    assert search.suggest("t8") == search.FINISHED


def test_parameters_of_an_option_exist_only_where_it_was_drawn(tmp_path):
    search = searcher(tmp_path)
    specs = [drawn(search.suggest(f"t{i}"))[1] for i in range(8)]
    assert {spec.losses.wr_triple.weight > 0 for spec in specs} == {True, False}
    for trial, spec in zip(open_study(tmp_path / "study.journal").trials, specs, strict=True):
        assert ("losses.wr_triple.weight" in trial.params) == (spec.losses.wr_triple.weight > 0)


def test_a_finished_trial_is_complete_with_its_last_score(tmp_path):
    search = searcher(tmp_path)
    search.suggest("a")
    search.on_trial_result("a", result(2, 0.4))
    search.on_trial_complete("a", result(8, 0.7, "complete"))
    (trial,) = open_study(tmp_path / "study.journal").trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)
    assert trial.intermediate_values == {2: 0.4, 8: 0.7}


def test_a_stopped_trial_is_pruned_with_the_score_and_the_step_it_reached(tmp_path):
    search = searcher(tmp_path)
    name, _ = drawn(search.suggest("a"))
    checkpoint = RunFolder(tmp_path).trial(name) / "checkpoint-2"
    checkpoint.mkdir()
    search.on_trial_complete("a", result(2, 0.4))
    (trial,) = open_study(tmp_path / "study.journal").trials
    assert (trial.state, trial.value, trial.last_step) == (TrialState.PRUNED, 0.4, 2)
    assert RunFolder(tmp_path).read_trial(name).state == "stopped"
    assert not checkpoint.exists()


def test_a_failed_trial_is_reported_as_failed(tmp_path):
    search = searcher(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", {"state": "failed", "wall_s": 1.0, "error": "diverged"})
    assert states(tmp_path) == [TrialState.FAIL]


def test_a_trial_whose_workers_were_lost_gets_an_outcome_from_the_searcher(tmp_path):
    search = searcher(tmp_path)
    name, _ = drawn(search.suggest("a"))
    search.on_trial_result("a", result(2, 0.4))
    search.on_trial_complete("a", error=True)
    assert states(tmp_path) == [TrialState.FAIL]
    outcome = RunFolder(tmp_path).read_trial(name).outcome
    assert outcome is not None
    assert (outcome.state, outcome.wall_s) == ("failed", 1.0)
    assert outcome.error == "its worker was lost"


def test_unfinished_trials_continue_and_nothing_is_drawn_twice(tmp_path):
    first = searcher(tmp_path)
    before = [drawn(first.suggest(f"a{i}")) for i in range(4)]
    first.on_trial_complete("a1", result(8, 0.7, "complete"))
    del first  # as after SIGKILL

    second = searcher(tmp_path)
    again = [drawn(second.suggest(f"b{i}")) for i in range(8 - 1)]
    assert again[:3] == [before[0], before[2], before[3]]
    names = [name for name, _ in again]
    assert names[3:] == ["0004", "0005", "0006", "0007"]
    assert second.suggest("b7") == second.FINISHED
    digests = {spec.digest() for _, spec in [*before, *again]}
    assert len(digests) == 8


def test_a_resumed_search_draws_what_the_other_would_have_drawn(tmp_path):
    whole, cut = searcher(tmp_path / "whole"), searcher(tmp_path / "cut")
    for i in range(8):
        expected = drawn(whole.suggest(f"t{i}"))
        if i == 5:
            cut = searcher(tmp_path / "cut")
        assert drawn(cut.suggest(f"t{i}")) == expected
        for search in (whole, cut):
            search.on_trial_complete(f"t{i}", result(8, 0.1 * (i % 4), "complete"))


def test_an_outcome_that_only_the_folder_has_is_reported(tmp_path):
    search = searcher(tmp_path)
    ends = {"a": "complete", "b": "stopped", "c": "failed"}
    for trial_id, state in ends.items():
        name, _ = drawn(search.suggest(trial_id))
        folder = TrialFolder(RunFolder(tmp_path).trial(name))
        append_measurement(folder.path, measurement(4, 0.5))
        if state == "complete":
            append_measurement(folder.path, measurement(8, 0.6))
        folder.write_outcome(outcome_of(state, ResourceSettings(), 1.0))  # type: ignore[arg-type]
    name, _ = drawn(searcher(tmp_path).suggest("d"))
    assert name == "0003"  # none of the three continues
    trials = open_study(tmp_path / "study.journal").trials[:3]
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [t.value for t in trials] == [0.6, 0.5, None]


def test_a_trial_that_was_interrupted_while_it_was_drawn_is_drawn_again(tmp_path):
    whole, cut = searcher(tmp_path / "whole"), searcher(tmp_path / "cut")
    expected = [drawn(whole.suggest(f"t{i}")) for i in range(3)]
    got = [drawn(cut.suggest(f"t{i}")) for i in range(2)]
    study = open_study(tmp_path / "cut" / "study.journal")
    study.ask().suggest_float("losses.wr_pair", 0.1, 100, log=True)
    got.append(drawn(searcher(tmp_path / "cut").suggest("t2")))  # after 0000 and 0001
    assert got[2] == expected[0]
    again = searcher(tmp_path / "cut")
    assert [drawn(again.suggest(f"u{i}")) for i in range(3)] == expected


@pytest.mark.parametrize("junk", [b'{"op_code": 4, "worker', b"{"])
def test_half_a_line_at_the_end_of_the_journal_does_no_harm(tmp_path, junk):
    first = searcher(tmp_path)
    before = drawn(first.suggest("a"))
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(junk)
    (tmp_path / "study.journal.lock").symlink_to(tmp_path / "study.journal")
    second = searcher(tmp_path)
    assert drawn(second.suggest("b")) == before
    assert drawn(second.suggest("c"))[0] == "0001"
    assert len(searcher(tmp_path)._unfinished) == 2  # and the journal is still readable


def test_no_spec_is_run_twice_and_a_used_up_space_ends_the_search(tmp_path):
    search = searcher(tmp_path, SMALL)
    weights = [drawn(search.suggest(f"t{i}"))[1].losses.wr_pair.weight for i in range(3)]
    assert sorted(weights) == [1, 2, 3]
    assert search.suggest("t3") == search.FINISHED
    assert searcher(tmp_path, SMALL)._next_trial() is not None  # those three still run


def test_inadmissible_draws_are_rejected(tmp_path):
    text = SMALL + "train: {batch_size: {choice: [24, 16]}, micro_batch_size: {choice: [8, 12]}}\n"
    search = searcher(tmp_path, text)  # 16 is no multiple of 12
    specs = [drawn(search.suggest(f"t{i}"))[1] for i in range(8)]
    sizes = {(spec.train.batch_size, spec.train.micro_batch_size) for spec in specs}
    assert sizes == {(24, 8), (24, 12), (16, 8)}


def test_a_space_with_nothing_to_run_is_refused(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise SpecError(Problem("", "train.lr", "is wrong"))

    search = searcher(tmp_path)
    monkeypatch.setattr(SearchSpace, "draw", refuse)
    with pytest.raises(SpecError, match=r"no trial can be run: .* train.lr: is wrong"):
        search.suggest("a")


def test_tpe_learns_from_reported_scores(tmp_path):
    text = SMALL.replace("{choice: [1, 2, 3]}", "{uniform: [0, 10]}").replace("8", "40")
    search = searcher(tmp_path, text)
    weights = []
    for i in range(40):
        _, spec = drawn(search.suggest(f"t{i}"))
        weights.append(spec.losses.wr_pair.weight)
        search.on_trial_complete(f"t{i}", result(8, -abs(weights[-1] - 7), "complete"))
    late = sum(abs(weight - 7) for weight in weights[-10:]) / 10
    assert late < 2  # chance gives 2.9


def test_specs_in_the_study_are_those_on_disk(tmp_path):
    drawn(searcher(tmp_path).suggest("a"))
    (trial,) = open_study(tmp_path / "study.journal").trials
    on_disk = (tmp_path / "trials" / "0000" / "spec.json").read_text()
    assert json.loads(trial.user_attrs["spec"]) == json.loads(on_disk)
    assert isinstance(trial, optuna.trial.FrozenTrial)


def test_a_resumed_trial_uses_the_current_placement_of_the_teacher(tmp_path):
    name, spec = drawn(searcher(tmp_path).suggest("a"))
    assert spec.inference.placement == "device"
    moved = SPACE.replace("somewhere", "{model: somewhere, placement: cpu}")
    again, then = drawn(searcher(tmp_path, moved).suggest("a"))
    assert (again, then.inference.placement) == (name, "cpu")
    assert then.digest() == spec.digest()


def test_a_trial_that_was_not_drawn_takes_a_number_and_changes_no_draw(tmp_path):
    whole, cut = searcher(tmp_path / "whole"), searcher(tmp_path / "cut")
    run = RunFolder(tmp_path / "cut")
    for i in range(8):
        name, expected = drawn(whole.suggest(f"t{i}"))
        if i == 5:
            assert next_number(run) == 5
            folder = TrialFolder(run.trial("0005"))
            folder.write_origin(LABELS_ALONE)
            folder.write_spec(expected.on_labels_alone())
            assert ([*run.read_comparisons()], next_number(run)) == (["0005"], 6)
            cut = searcher(tmp_path / "cut")
        assert drawn(cut.suggest(f"t{i}")) == (f"{i + (i >= 5):04d}", expected)
        for search in (whole, cut):
            search.on_trial_complete(f"t{i}", result(8, 0.1 * (i % 4), "complete"))
    assert (name, cut.suggest("t8")) == ("0007", cut.FINISHED)
