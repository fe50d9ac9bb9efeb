"""Warnings about a teacher, and which students are timed before the first trial."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lkd_tune.config.read_space import build_space
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.source import parse_source
from lkd_tune.records.manifest import write_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.tuning.preparation.prepare import chance_problem, ensure_latencies

TASK = "task: {name: sst2, train: train.csv, dev: dev.csv}\n"


def settings(teacher: str):
    return build_space(parse_source(TASK + teacher, "space.yaml")).settings


def test_a_teacher_has_to_be_better_than_a_constant_answer():
    given = settings("teacher: somewhere")
    assert chance_problem(given, 0.01, 0.0) is None
    assert chance_problem(given, 0.51, 0.5) is None
    assert chance_problem(given, 0.5, 0.5) is not None
    assert chance_problem(given, -0.02, -0.1) is not None


def test_what_is_said_of_a_useless_teacher_names_the_fix():
    given = chance_problem(settings("teacher: somewhere"), 0.0, 0.0)
    assert given is not None
    assert "task.labels" in given
    assert "teacher.allow_chance_level" in given
    trained = chance_problem(settings("teacher: {train: {model: bert, epochs: 1}}"), -0.02, 0.0)
    assert trained is not None
    assert "teacher.train.epochs" in trained


@pytest.mark.parametrize(
    ("text", "depths"),
    [
        ("student: {depth: {choice: [2, 3]}, init: teacher}", [2, 3]),
        ("student: {depth: {int: [1, 6]}}", []),  # many, and latency is not an objective
        ("student: {depth: {int: [1, 6]}}\nlimits: latency_ms <= 5", [1, 2, 3, 4, 5, 6]),
        (
            "student: {depth: {int: [1, 5]}}\nobjectives: [score, latency_ms_batch_32]",
            [*range(1, 6)],
        ),
        ("student: {depth: {int: [1, 40]}}\nlimits: latency_ms <= 5", []),
        ("student: {depth: 2, vocab: trim}", []),
        ("student: {depth: 2, vocab: {choice: [teacher, trim]}}", [2]),
    ],
)
def test_the_teacher_and_few_students_are_timed_ahead_and_more_if_latency_counts(
    tmp_path, text, depths
):
    space = build_space(parse_source(f"{TASK}teacher: somewhere\n{text}\n", "space.yaml"))
    asked, said = [], []
    write_manifest(RunFolder(tmp_path), {"teacher": {"layers": 12}})
    session = SimpleNamespace(
        space=space,
        settings=space.settings,
        run=RunFolder(tmp_path),
        view=SimpleNamespace(phase=lambda text: None, note=said.append),
        cwd=str(tmp_path),
    )

    def run(part, function, own, model, inference, students, *others):
        asked.append([StudentSettings.model_validate_json(student).depth for student in students])
        return {
            "files": {f"{len(asked)}.json": "{}"} if students else {},
            "teacher": {"latency_ms": 8.5},
            "warning": "the machine is busy",
        }

    for _ in range(2):  # the second time there is nothing left to do
        ensure_latencies(session, SimpleNamespace(run=run), "somewhere")
    assert asked == [depths]
    assert session.run.read_manifest()["teacher"] == {"layers": 12, "latency_ms": 8.5}
    assert said == ["warning: the machine is busy"]
