"""What becomes of a search while its store is away, and of the thread that sends its run there."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lkd_tune.config.errors import Problem
from lkd_tune.config.read_space import load_space
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import StorageError, Store, retry_until_available
from lkd_tune.tuning.mirror import run_mirror
from lkd_tune.tuning.mirror.node_storage import NodeStorage
from lkd_tune.tuning.mirror.run_mirror import LostRunError, RunMirror
from lkd_tune.tuning.study.fixed_trials import FixedTrials
from lkd_tune.tuning.study.searcher import StudySearcher
from tests.support.object_store import outage, s3_server
from tests.support.run_folder import HandMade

pytestmark = pytest.mark.slow

PATIENCE_S = 60


@pytest.fixture
def run(tmp_path):
    made = HandMade(tmp_path / "run", session="first")
    made.add("0000", 0.5, None)
    with s3_server() as bucket:
        yield RunFolder(made.run.path, f"{bucket}/first")


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(run_mirror, "_MIN_PAUSE_S", 0.1)
    return []


def wait_until(reached) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_outage_is_waited_for(run, told, tmp_path):
    with RunMirror(run, told.append, lambda: None), ThreadPoolExecutor() as pool:
        elsewhere = RunFolder(Path("/nowhere"), run.remote_uri)
        node = NodeStorage(elsewhere, "0000", "first", str(tmp_path))
        with outage():
            (run.path / "note.txt").write_text("of that time")
            pulled = pool.submit(node.pull)
            wait_until(lambda: told)
            assert not pulled.done()
        pulled.result()
        assert (node.run.trial("0000") / "measurements.jsonl").exists()
        wait_until(lambda: len(told) == 2)
    assert "can't be reached" in told[0]
    assert told[0].endswith("the search continues, and retries the upload")
    assert told[1] == f"{run.remote_uri} is up to date again"
    assert Store(run.remote_uri).read("note.txt") == b"of that time"


def test_what_else_goes_wrong_does_not_end_the_thread(run, told):
    with RunMirror(run, told.append, lambda: None):
        record = run.path / ".mirror.json"
        record.unlink()
        (record / "in the way").mkdir(parents=True)
        (run.path / "note.txt").write_text("sent")
        wait_until(lambda: told)
        assert told[0].startswith("mirror: IsADirectoryError")
        (record / "in the way").rmdir()
        record.rmdir()
        wait_until(lambda: told[-1] == f"{run.remote_uri} is up to date again")
    assert len(told) == 2
    assert Store(run.remote_uri).read("note.txt") == b"sent"


def test_a_driver_learns_that_another_continues_its_run(run, told):
    replaced = []
    with RunMirror(run, told.append, lambda: replaced.append(True)) as own:
        Store(run.remote_uri).write("manifest.json", b'{"session": "second"}')
        (run.path / "note.txt").write_text("too late")
        wait_until(lambda: replaced)
        (run.path / "note.txt").unlink()
        (run.path / "space.yaml").touch()
        own._session = "second"  # so that the end has nothing to object to
        update_manifest(run, session="second")
    assert told == [f"{run.remote_uri}: another driver has resumed the run, so this one ends"]


def test_a_search_ends_whose_folder_is_cleaned(run, told):
    ended = []
    own = RunMirror(run, told.append, lambda: ended.append(True))
    own.__enter__()
    before = Store(run.remote_uri).list()
    shutil.rmtree(run.path)
    wait_until(lambda: ended)
    with pytest.raises(LostRunError):
        own.__exit__(None, None, None)
    (line,) = told
    assert f"{run.path}: has lost its manifest.json, so the search ends" in line
    assert Store(run.remote_uri).list() == before


def test_looks_are_as_rare_as_they_are_long(run, told, monkeypatch):
    looks: list[float] = []

    def slow_look(self) -> None:
        looks.append(time.monotonic())
        time.sleep(0.05)

    monkeypatch.setattr(RunMirror, "flush", slow_look)
    with RunMirror(run, told.append, lambda: None):
        wait_until(lambda: len(looks) == 4)
    assert looks[3] - looks[2] >= 0.05 * run_mirror._PAUSE_PER_PASS


def test_patience_ends_when_it_is_asked_to():
    calls = []

    def fail() -> None:
        calls.append(True)
        raise StorageError(Problem("s3://bucket", "", "can't be reached"))

    with pytest.raises(StorageError):
        retry_until_available(fail, give_up=lambda: len(calls) == 2)
    assert len(calls) == 2


def test_a_trial_that_could_not_be_fetched_has_not_ended(tmp_path):
    made = HandMade(tmp_path / "run")
    space = load_space(made.run.space)

    def study() -> StudySearcher:
        return StudySearcher(
            space,
            made.run,
            teacher="t",
            teacher_layers=6,
            common={},
            fetch_trial_results=lambda *_: False,
        )

    searcher = study()
    config = searcher.suggest("tune-1")
    end = {"state": "complete", "score": 0.5, "wall_s": 1.0, "worker_s": 1.0, "is_remote": True}
    searcher.on_trial_complete("tune-1", end)
    assert study().suggest("tune-2")["name"] == config["name"]
    specs = {"baseline": made._draw("baseline", 3)}
    given = FixedTrials(made.run, specs, {}, lambda *_: False)
    given.suggest("tune-3")
    given.on_trial_complete("tune-3", error=True)
    assert made.run.read_trial("baseline").outcome is None
