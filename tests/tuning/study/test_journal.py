"""The journal against Optuna's own backend: the same file, the same trials."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from lkd_tune.tuning.study.journal import Journal


def trials_in(backend) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="own", storage=JournalStorage(backend)).trials


def add_trial(study: optuna.Study) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    trial.set_user_attr("name", "ö")
    study.tell(trial, 0.7)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "study.journal"


def test_either_reads_what_the_other_wrote(path):
    for backend in (JournalFileBackend, Journal, JournalFileBackend, Journal):
        storage = JournalStorage(backend(str(path)) if backend != Journal else Journal(path))
        study = optuna.create_study(study_name="own", storage=storage, load_if_exists=True)
        add_trial(study)
        assert study.trials == trials_in(Journal(path)) == trials_in(JournalFileBackend(str(path)))
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]


def test_a_batch_is_written_at_its_end(path):
    journal = Journal(path)
    study = optuna.create_study(study_name="own", storage=JournalStorage(journal))
    before = path.read_text()
    with journal.batch():
        add_trial(study)
        assert path.read_text() == before
        assert len(study.trials) == 1  # which does not mean that it is not known here
    assert trials_in(JournalFileBackend(str(path))) == study.trials

    def fail() -> None:
        with journal.batch():
            add_trial(study)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(trials_in(JournalFileBackend(str(path)))) == 2
