"""Optuna Dashboard on the study of a run: all of it, while it is searched, and never changed."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import optuna
import pytest

from tests.support.run_folder import HandMade
from tests.support.studies import open_study


@pytest.fixture
def run(tmp_path):
    """A run whose study has two trials, as the search writes it."""
    run = HandMade(tmp_path / "run").run
    add_trial(run, 0.5)
    add_trial(run, 0.7)
    return run


def add_trial(run, score):
    study = open_study(run.study)
    trial = study.ask()
    trial.suggest_float("train.lr", 1e-4, 1e-2, log=True)
    trial.report(score / 2, 10)
    study.tell(trial, score)


def ask(address, path, method="GET"):
    request = urllib.request.Request(address.replace("/dashboard", path), method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.fixture
def address(run):
    """Where a user's `lkd-tune dashboard` serves it."""
    command = [sys.executable, "-m", "lkd_tune.cli", "dashboard", str(run.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_the_trials_are_there_also_those_that_come(run, address):
    assert address.startswith("http://127.0.0.1:")
    [summary] = ask(address, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "lkd_tune"
    place = f"/api/studies/{summary['study_id']}"
    trials = ask(address, place)["trials"]
    assert [trial["values"] for trial in trials] == [[0.5], [0.7]]
    assert trials[0]["params"][0]["name"] == "train.lr"
    assert trials[1]["intermediate_values"] == [{"step": 10, "value": 0.35}]
    add_trial(run, 0.9)
    until = time.monotonic() + 60
    while len(trials := ask(address, place)["trials"]) < 3:  # it looks every two seconds
        assert time.monotonic() < until
        time.sleep(0.2)
    assert [trial["values"] for trial in trials] == [[0.5], [0.7], [0.9]]


def test_nothing_can_be_changed(run, address):
    before = run.study.read_bytes()
    for method, path in (
        ("DELETE", "/api/studies/0"),
        ("POST", "/api/studies/0/rename"),
        ("PUT", "/api/studies/0/note"),
        ("POST", "/api/trials/0/tell"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, path, method)
        assert refused.value.code == 403
        assert "read-only" in refused.value.read().decode()
    ask(address, "/api/studies")
    assert run.study.read_bytes() == before
    assert len(open_study(run.study).trials) == 2


def test_the_dashboard_itself_opens_the_file(run):
    from optuna_dashboard._storage_url import get_storage

    study = optuna.load_study(study_name="lkd_tune", storage=get_storage(str(run.study)))
    assert [trial.value for trial in study.trials] == [0.5, 0.7]


def test_a_run_without_a_study(tmp_path):
    made = HandMade(tmp_path / "run")
    command = [sys.executable, "-m", "lkd_tune.cli", "dashboard", str(made.run.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"lkd-tune: {made.run.path}: has no study yet, because no trial has started\n"
    )
