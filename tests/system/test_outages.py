"""Searches whose object store is away for a while, or for good."""

from __future__ import annotations

import contextlib
import threading

import pytest

from lkd_tune.config.errors import Problem
from lkd_tune.records.run import RunFolder
from lkd_tune.storage import object_store as storage
from lkd_tune.storage.fetch import open_run
from lkd_tune.storage.object_store import StorageError
from lkd_tune.tuning.execution.callback import SearchCallback
from lkd_tune.tuning.execution.trainable import DistillationTrainable
from lkd_tune.tuning.session import Session
from lkd_tune.tuning.tuner import resume_search, run_search
from tests.support.object_store import outage, s3_server
from tests.support.tiny import make_space

SEARCH = {"trials": 2, "max_failures": 0}
# The client itself tries for 6 s.
AWAY_S = 15.0


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LKD_TUNE_NODE_CACHE", str(tmp_path / "node"))
    with s3_server() as bucket:
        yield f"{bucket}/first"


class ApartSession(Session):
    """A search whose trials see another disk than its driver."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.common["run"] = "/nowhere"


@pytest.mark.slow
def test_an_outage_fails_no_trial(home, tmp_path, monkeypatch):
    back, seen_by = contextlib.ExitStack(), SearchCallback.on_trial_result
    waited = threading.Timer(AWAY_S, back.close)

    def leave(self, iteration, trials, trial, result, **info):
        seen_by(self, iteration, trials, trial, result, **info)
        if waited.ident is None:
            back.enter_context(outage())
            waited.start()

    monkeypatch.setattr(SearchCallback, "on_trial_result", leave)
    monkeypatch.setattr("lkd_tune.tuning.tuner.Session", ApartSession)
    result = run_search(make_space(tmp_path, search=SEARCH), open_run(home), quiet=True)
    assert waited.finished.is_set()
    assert (result.trials, result.failures, result.interrupted) == (2, {}, False)
    assert [record.state for record in result.run.read_trials()] == ["complete"] * 2


@pytest.mark.slow
def test_a_store_that_stays_away_ends_the_search_and_no_trial(home, tmp_path, monkeypatch):
    space, run, away = make_space(tmp_path, search=SEARCH), open_run(home), contextlib.ExitStack()

    class LeftSession(ApartSession):
        def fetch_trial_results(self, trial, result):
            away.enter_context(outage())
            return super().fetch_trial_results(trial, result)

    with away, monkeypatch.context() as patch:
        patch.setattr(storage, "_RETRY_S", 1.0)
        patch.setattr("lkd_tune.tuning.tuner.Session", LeftSession)
        with pytest.raises(
            StorageError, match=r"run `lkd-tune search --resume s3://.*` on this machine"
        ):
            run_search(space, run, quiet=True)
    assert [record.state for record in run.read_trials()] == ["running"]
    measured = storage.Store(home).read("trials/0000/measurements.jsonl")
    result = resume_search(run, quiet=True)
    assert (result.trials, result.failures) == (2, {})
    # It had ended there, and nobody was told.
    assert (run.trial("0000") / "measurements.jsonl").read_bytes() == measured


@pytest.mark.slow
def test_a_trial_that_finds_no_store_ends_the_search_and_not_itself(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")

    class Away(DistillationTrainable):
        def step(self):
            raise StorageError(Problem("s3://bucket", "", "S3 can't be reached"))

    with monkeypatch.context() as patch:
        patch.setattr("lkd_tune.tuning.execution.trainable.DistillationTrainable", Away)
        result = run_search(make_space(tmp_path, search=SEARCH), run, quiet=True)
    assert result.interrupted
    assert [record.state for record in run.read_trials()] == ["running"]
    result = resume_search(run, quiet=True)
    assert (result.trials, result.failures) == (2, {})
