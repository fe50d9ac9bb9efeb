"""A run folder as a crash may leave it."""

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import Outcome, RunFolder, append_measurement, read_measurements
from tests.config.test_trial import spec_of


def measured(step, score=0.5, total_steps=30):
    return Measurement(
        step=step,
        total_steps=total_steps,
        score=score,
        metrics={"matthews": score},
        losses={"total": 1.0},
        parameters=1000,
        train_s=1.5,
        samples_per_s=100.0,
        peak_memory_gib=0.5,
    )


def test_measurements_there_and_back(tmp_path):
    for step in (10, 20, 30):
        append_measurement(tmp_path, measured(step))
    assert read_measurements(tmp_path) == [measured(10), measured(20), measured(30)]
    assert [m.finished for m in read_measurements(tmp_path)] == [False, False, True]


def test_no_measurements_yet(tmp_path):
    assert read_measurements(tmp_path) == []


@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_line_cut_off_is_left_out_and_replaced(tmp_path, kept):
    path = tmp_path / "measurements.jsonl"
    append_measurement(tmp_path, measured(10))
    append_measurement(tmp_path, measured(20))
    first, second, _ = path.read_text().split("\n")
    path.write_text(first + "\n" + second[:kept])
    assert read_measurements(tmp_path) == [measured(10)]
    append_measurement(tmp_path, measured(20, 0.7))
    assert read_measurements(tmp_path) == [measured(10), measured(20, 0.7)]


def test_the_very_first_line_cut_off(tmp_path):
    (tmp_path / "measurements.jsonl").write_text('{"step": 1')
    assert read_measurements(tmp_path) == []
    append_measurement(tmp_path, measured(10))
    assert read_measurements(tmp_path) == [measured(10)]


def test_of_a_step_measured_twice_the_later_counts(tmp_path):
    for step, score in ((10, 0.1), (20, 0.2), (10, 0.3)):
        append_measurement(tmp_path, measured(step, score))
    assert [(m.step, m.score) for m in read_measurements(tmp_path)] == [(10, 0.3), (20, 0.2)]


def test_trials_are_read_in_every_state(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("0001", "0000", "baseline"):
        write_atomically(run.trial(name) / "spec.json", spec_of().to_json())
    (run.trial("0002")).mkdir()  # started, its spec not yet written
    append_measurement(run.trial("0000"), measured(10, 0.4))
    outcome = Outcome(state="stopped", wall_s=3)
    write_atomically(run.trial("0000") / "outcome.json", outcome.model_dump_json())
    first, second, last = run.read_trials()
    assert (first.name, first.state, first.score, first.kept) == ("0000", "stopped", 0.4, False)
    assert (second.name, second.state, second.score) == ("0001", "running", None)
    assert last.name == "baseline"


def test_a_student_is_kept_once_its_facts_are_there(tmp_path):
    run = RunFolder(tmp_path)
    write_atomically(run.trial("0000") / "spec.json", spec_of().to_json())
    run.student("0000").mkdir(parents=True)
    assert not run.read_trial("0000").kept
    (run.student("0000") / "student.json").write_text("{}")
    assert run.read_trial("0000").kept


@pytest.mark.parametrize(
    ("manifest", "message"),
    [(None, "is no run folder: it has no manifest.json"), ('{"a"', "can't be read")],
)
def test_bad_manifest(tmp_path, manifest, message):
    run = RunFolder(tmp_path)
    if manifest is not None:
        run.manifest.write_text(manifest)
    with pytest.raises(SpecError, match=message):
        run.read_manifest()
