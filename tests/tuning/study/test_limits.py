"""Several objectives, limits and starting points: what the study learns of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lkd_tune.config.errors import SpecError
from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.config.source import parse_source
from lkd_tune.config.starts import Start
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import ModelSize
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import outcome_of
from lkd_tune.tuning.study.searcher import StudySearcher
from tests.support.families import make_classifier
from tests.support.studies import open_study
from tests.tuning.study.test_searcher import SPACE, drawn, result, searcher

BOTH = SPACE + "objectives: [score, parameters]\n"
OBJECTIVES = ["score", "parameters"]


def size(parameters: int, latency_ms: float = 1.0) -> ModelSize:
    return ModelSize(
        parameters=parameters,
        flops=10,
        disk_mb=1.0,
        latency_ms=latency_ms,
        latency_ms_batch_32=20.0,
    )


def ended(search: StudySearcher, run: RunFolder, trial_id: str, state: str, **values: Any) -> str:
    """Draws a trial and ends it with a score and a size."""
    name, _ = drawn(search.suggest(trial_id))
    TrialFolder(run.trial(name)).write_size(size(values["parameters"]))
    step = 8 if state == "complete" else 2
    search.on_trial_complete(
        trial_id, result(step, values["score"], "running" if state == "stopped" else state)
    )
    return name


def test_a_study_of_several_objectives_has_all_values(tmp_path):
    search, run = searcher(tmp_path, BOTH), RunFolder(tmp_path)
    ended(search, run, "a", "complete", score=0.7, parameters=500)
    ended(search, run, "b", "stopped", score=0.2, parameters=400)
    first, second = open_study(run.study, OBJECTIVES).trials
    assert (first.state, first.values) == (TrialState.COMPLETE, [0.7, 500])
    # Stopped at a quarter: none of its values can get onto the front.
    assert (second.state, second.values) == (TrialState.PRUNED, None)
    assert second.user_attrs["scores"] == {"2": 0.2}
    assert open_study(run.study, OBJECTIVES).best_trials == [first]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "gp", "evolution", "random"])
def test_samplers_continue_with_several_objectives_stopped_trials_and_limits(tmp_path, sampler):
    text = BOTH.replace("trials: 8", f"trials: 16, sampler: {sampler}")
    search, run = searcher(tmp_path, text), RunFolder(tmp_path)
    for i in range(16):
        state = "complete" if i % 3 else "stopped"
        ended(search, run, f"t{i}", state, score=0.1 * (i % 5), parameters=100 * (1 + i % 4))
    assert search.suggest("end") == search.FINISHED


def _limited(folder: Path, limits: str, search: str = "trials: 8") -> StudySearcher:
    teacher = make_classifier(folder / "teacher")
    text = SPACE.replace("teacher: somewhere", f"teacher: {teacher}") + f"limits: {limits}\n"
    text = text.replace("trials: 8", search)
    return StudySearcher(
        build_space(parse_source(text, "space.yaml")),
        RunFolder(folder / "run"),
        teacher=teacher,
        teacher_layers=4,
        common={},
    )


def _parameters(folder: Path, depth: int) -> int:
    from lkd_tune.models.loading import load_config
    from lkd_tune.models.size import count_size
    from lkd_tune.models.student import student_config

    config = student_config(StudentSettings(depth=depth), load_config(str(folder / "teacher")))
    return count_size(config, "SequenceClassification", 8).parameters


def test_a_student_that_is_too_large_is_rejected_before_it_becomes_a_trial(tmp_path):
    make_classifier(tmp_path / "teacher")
    limit = (_parameters(tmp_path, 2) + _parameters(tmp_path, 3)) / 2
    search = _limited(tmp_path, f"[parameters <= {limit}]")
    depths = [drawn(search.suggest(f"t{i}"))[1].student.depth for i in range(8)]
    assert set(depths) == {1, 2}
    study = open_study(tmp_path / "run" / "study.journal")
    refused = [trial for trial in study.trials if "not_run" in trial.user_attrs]
    assert refused
    for trial in refused:
        assert trial.state == TrialState.PRUNED
        assert trial.params["student.depth"] == 3
        assert trial.constraints["parameters"] == pytest.approx(
            (_parameters(tmp_path, 3) - limit) / limit
        )


def test_limits_that_no_student_meets_are_refused_with_the_reason(tmp_path):
    search = _limited(tmp_path, "{parameters: 10}")
    with pytest.raises(SpecError, match=r"no trial can be run: .* parameters is \d+% above"):
        search.suggest("a")


def test_a_slow_student_is_refused_by_its_trial_and_reported_as_a_constraint(tmp_path):
    search = _limited(tmp_path, "{latency_ms: 2}")
    name, _ = drawn(search.suggest("a"))
    folder = TrialFolder(RunFolder(tmp_path / "run").trial(name))
    folder.write_size(size(100, latency_ms=3.0))
    folder.write_outcome(outcome_of("refused", ResourceSettings(), 0.1, "latency_ms 3 is above 2"))
    search.on_trial_complete("a", {"state": "refused", "wall_s": 0.1, "error": "latency_ms"})
    (trial,) = open_study(tmp_path / "run" / "study.journal").trials
    assert (trial.state, trial.constraints) == (TrialState.PRUNED, {"latency_ms": 0.5})


def test_a_student_is_too_slow_only_on_devices_that_trials_run_on_now(tmp_path):
    from lkd_tune.files.digest import digest
    from lkd_tune.models.loading import load_config
    from lkd_tune.models.size import architecture_key
    from lkd_tune.models.student import student_config

    search = _limited(tmp_path, "{latency_ms: 2}", "trials: 24, sampler: random")
    run = RunFolder(tmp_path / "run")

    def take(trial_id: str, device: str) -> None:
        """Notes that students of two and three layers are too slow there, and ends a trial."""
        name, spec = drawn(search.suggest(trial_id))
        teacher = load_config(str(tmp_path / "teacher"))
        for depth in (2, 3):
            config = student_config(StudentSettings(depth=depth), teacher)
            key = architecture_key(config, "SequenceClassification", spec.task.max_length)
            facts = {"latency_ms": 3.0, "latency_ms_batch_32": 9.0, "device": device}
            write_atomically(run.latencies / f"{digest(key, device)}.json", json.dumps(facts))
        timed = size(100).model_copy(update={"device": device})
        TrialFolder(run.trial(name)).write_size(timed)
        told = {**result(8, 0.5, "complete"), "size": timed.model_dump_json()}
        search.on_trial_complete(trial_id, told)

    take("a", "slow, fp32")
    depths = {drawn(search.suggest(f"b{i}"))[1].student.depth for i in range(8)}
    assert depths == {1}
    # Another device may be faster, so there they may be tried.
    faster = size(100).model_copy(update={"device": "fast, fp32"})
    search.on_trial_result("b0", {**result(2, 0.5), "size": faster.model_dump_json()})
    assert {drawn(search.suggest(f"c{i}"))[1].student.depth for i in range(8)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("[parameters < 5]", "is not a limit; write `parameters <= 15e6`"),
        ("{params: 5}", "params"),
        ("{parameters: -5}", "greater than 0"),
        ("[parameters <= many]", "parameters"),
    ],
)
def test_wrong_limits_are_refused(limits, message):
    with pytest.raises(SpecError, match=message):
        build_space(parse_source(SPACE + f"limits: {limits}\n", "space.yaml"))


@pytest.mark.parametrize("objectives", ["[parameters]", "[score, score]", "[score, size]"])
def test_wrong_objectives_are_refused(objectives):
    with pytest.raises(SpecError, match="objectives"):
        build_space(parse_source(SPACE + f"objectives: {objectives}\n", "space.yaml"))


def test_a_search_starts_with_the_given_points(tmp_path):
    starts = [
        Start("recipe ckd", {"student.depth": 2, "losses.wr_pair": 1.0}, {}),
        Start("runs/a 0007", {"losses.wr_pair": 0.25}, {}),
    ]
    run = RunFolder(tmp_path)
    space = build_space(parse_source(SPACE, "space.yaml"))
    first = StudySearcher(
        space, run, teacher="somewhere", teacher_layers=6, common={}, starts=starts
    )
    name, spec = drawn(first.suggest("a"))
    assert (spec.student.depth, spec.losses.wr_pair.weight) == (2, 1.0)
    assert run.read_trial(name).origin == "recipe ckd"
    # Cut off here: the second point is not lost, and none is tried twice.
    second = StudySearcher(
        space, run, teacher="somewhere", teacher_layers=6, common={}, starts=starts
    )
    assert drawn(second.suggest("b"))[0] == name
    other, spec = drawn(second.suggest("c"))
    assert spec.losses.wr_pair.weight == 0.25
    assert run.read_trial(other).origin == "runs/a 0007"
    third, _ = drawn(second.suggest("d"))
    assert run.read_trial(third).origin is None
