"""What is read from a run folder."""

import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.files.atomic import write_atomically
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import append_measurement
from lkd_tune.records.trial_record import Outcome
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
    [(None, "is not a run folder: it has no manifest.json"), ('{"a"', "can't be read")],
)
def test_bad_manifest(tmp_path, manifest, message):
    run = RunFolder(tmp_path)
    if manifest is not None:
        run.manifest.write_text(manifest)
    with pytest.raises(SpecError, match=message):
        run.read_manifest()
