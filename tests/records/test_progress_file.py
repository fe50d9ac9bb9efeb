"""What is seen of a trial between two of its evaluations."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lkd_tune.cluster.nodes import NodeRequirements, SearchNodes
from lkd_tune.config.settings.training import ResourceSettings
from lkd_tune.distillation.engine import Distillation
from lkd_tune.records.measurement import TrainingProgress
from lkd_tune.records.progress_file import progress_writer, read_progress
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.tuning.execution.callback import SearchCallback
from lkd_tune.tuning.execution.retries import Retries
from lkd_tune.tuning.progress.view import View
from lkd_tune.tuning.stop import StopRequest
from tests.distillation.test_engine import _spec
from tests.tuning.study.test_searcher import drawn, measurement, searcher


def test_a_distillation_reports_its_steps_and_seconds_between_evaluations(tmp_path):
    told: list[TrainingProgress] = []
    train = {"steps": 50, "batch_size": 4, "lr": 1e-3, "evaluations": 1}
    with Distillation(_spec(tmp_path, train=train), on_progress=told.append) as distillation:
        (measurement,) = distillation
    assert [(pace.step, pace.total_steps) for pace in told] == [(20, 50), (40, 50), (50, 50)]
    seconds = [pace.train_s for pace in told]
    assert 0 < seconds[0] < seconds[1] < seconds[2] <= measurement.train_s


def test_a_pace_is_written_at_most_once_a_second(tmp_path):
    note = progress_writer(tmp_path / "pace")
    note(TrainingProgress(20, 200, 4.0))
    note(TrainingProgress(40, 200, 8.0))
    assert read_progress(tmp_path / "pace") == TrainingProgress(20, 200, 4.0)


@pytest.mark.parametrize("text", [None, "", "[20, 2"])
def test_a_pace_that_is_not_there_or_half_written_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "pace").write_text(text)
    assert read_progress(tmp_path / "pace") is None


def test_no_training_ends_because_its_pace_can_not_be_noted(tmp_path):
    progress_writer(tmp_path / "nowhere" / "pace")(TrainingProgress(20, 200, 4.0))
    assert not (tmp_path / "nowhere").exists()


def test_a_trial_that_has_ended_has_no_pace(tmp_path):
    folder = TrialFolder(tmp_path)
    progress_writer(folder.progress)(TrainingProgress(20, 200, 4.0))
    assert folder.progress.exists()
    folder.remove_checkpoints()
    assert not folder.progress.exists()


def test_the_first_steps_which_load_kernels_are_not_in_an_estimate(tmp_path):
    spec = drawn(searcher(tmp_path).suggest("a"))[1]
    console = Console(file=io.StringIO(), width=100)
    with View(4, "accuracy", console=console) as view:
        for name, pace in (
            ("0000", TrainingProgress(20, 200, 4.0)),
            ("0001", TrainingProgress(40, 200, 5.0)),
            ("0000", TrainingProgress(20, 200, 4.0)),  # the same look again
            ("0001", TrainingProgress(20, 200, 4.0)),  # lost, and back at its checkpoint
            ("0001", TrainingProgress(60, 200, 8.0)),
            ("0000", TrainingProgress(80, 200, 5.0)),
        ):
            view.trial_started(name, spec)
            view.stepped(name, pace)
    said = "about 4 trials × 20 s, 2 at a time: 40 s, or less if trials stop early"
    assert console.file.getvalue().splitlines() == [said]


def test_steps_and_time_of_a_teacher_that_is_trained_are_reported():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with View(4, "accuracy", console=console) as view:
        view.teacher_trains([], None)
        view.teacher_trains([], TrainingProgress(20, 200, 7.0))
        view.teacher_trains([measurement(4, 0.5)], TrainingProgress(100, 200, 31.0))
        said, console.file = console.file.getvalue(), io.StringIO()
        view._live.refresh()
        shown = console.file.getvalue()
    assert said.count("the teacher's training takes about 60 s") == 1
    assert "step 100/200, accuracy 0.5000, about 31 s left" in shown


def test_steps_and_an_estimate_are_shown_before_an_evaluation(tmp_path, monkeypatch, two_cores):
    spec = drawn(searcher(tmp_path / "drawn").suggest("a"))[1]
    run = RunFolder(tmp_path / "run")
    for name in ("0000", "0001"):
        run.trial(name).mkdir(parents=True)
    progress_writer(TrialFolder(run.trial("0001")).progress)(TrainingProgress(20, 200, 6.0))
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    actors = dict.fromkeys(("0000", "0001"))
    with View(4, "accuracy", console=console) as view:
        view.clock(None)
        callback = SearchCallback(
            run,
            view,
            StopRequest(None, 0.0, folder=tmp_path),
            actors,
            Retries(run, 3),
            SearchNodes(NodeRequirements(None, {}), ResourceSettings(), view.note),
            keep=lambda name: None,
        )
        monkeypatch.setattr("lkd_tune.tuning.execution.callback._READ_PROGRESS_EVERY_S", 0.0)
        for name in actors:
            view.trial_started(name, spec)
        callback.on_step_end(0, [])
        progress_writer(TrialFolder(run.trial("0001")).progress)(TrainingProgress(40, 200, 12.0))
        callback.on_step_end(0, [])
        said, console.file = console.file.getvalue(), io.StringIO()
        view._live.refresh()
        shown = console.file.getvalue()
    assert "about 4 trials × 60 s, 2 at a time: 2 min, or less if trials stop early" in said
    assert "2 running, about" in shown
    assert "0000   starting" in shown
    assert "0001   40/200" in shown
