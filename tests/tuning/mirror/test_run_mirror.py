"""A run's store, cut off at any point, holds a run that can go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest

from lkd_tune.config.errors import SpecError
from lkd_tune.files.atomic import remove_folder, write_atomically
from lkd_tune.files.tombstones import enable_tombstones, read_tombstones
from lkd_tune.records.manifest import update_manifest
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder, append_measurement, read_measurements
from lkd_tune.storage.object_store import Store
from lkd_tune.tuning.best_students import keep_best
from lkd_tune.tuning.mirror.node_storage import NodeStorage
from lkd_tune.tuning.mirror.run_mirror import LostRunError, RunMirror, fetch_run, run_exists
from tests.support.object_store import s3_server
from tests.support.run_folder import HandMade, measurement
from tests.support.studies import open_study

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket():
    with s3_server() as address:
        yield address


class CutError(BaseException):
    """The end of a driver."""


class CutStore(Store):
    """A store whose driver is gone after so many changes."""

    def __init__(self, address: str, changes: int):
        super().__init__(address)
        self.left = changes

    def _count(self) -> None:
        if self.left == 0:
            raise CutError
        self.left -= 1

    def write(self, name, content):
        self._count()
        super().write(name, content)

    def upload(self, name, file):
        self._count()
        super().upload(name, file)

    def remove(self, name):
        self._count()
        super().remove(name)

    def remove_folder(self, name):
        self._count()
        super().remove_folder(name)


def mirror(run: RunFolder, changes: int = 10**6) -> RunMirror:
    assert run.remote_uri is not None
    made = RunMirror(run, print, lambda: None)
    made._sync.store = CutStore(run.remote_uri, changes)
    return made


def story(folder: Path, snapshots: Path) -> list[Path]:
    """Returns a run's folder as it is at some moments of a search of two trials that keeps one."""
    made = HandMade(folder, session="first")
    run, taken = made.run, []
    enable_tombstones(folder)

    def snapshot() -> None:
        taken.append(snapshots / str(len(taken)))
        shutil.copytree(folder, taken[-1])

    study = open_study(run.study)
    snapshot()
    for name, score in (("0000", 0.5), ("0001", 0.6)):
        trial = study.ask()
        trial.set_user_attr("name", name)
        own = TrialFolder(run.trial(name))
        own.write_spec(made._draw(name, 3))
        for step in (10, 20):
            append_measurement(own.path, measurement(step, score))
            with own.new_checkpoint(step, step, step) as draft:
                (draft / "state").mkdir()
                (draft / "state" / "rank_0.pt").write_text(f"{name} {step}")
            snapshot()
        append_measurement(own.path, measurement(30, score))
        with own.new_student() as draft:
            (draft / "model.safetensors").write_text(f"weights of {name}")
            write_atomically(draft / "student.json", json.dumps({"name": name, "score": score}))
        outcome = {"state": "complete", "wall_s": 1.0}
        write_atomically(own.path / "outcome.json", json.dumps(outcome))
        snapshot()
        study.tell(trial, score)
        own.remove_checkpoints()
        snapshot()
        keep_best(run, 1)
        snapshot()
    return taken


def play(run: RunFolder, moments: list[Path], changes: int) -> bool:
    """Mirrors a story until so many changes are made; returns whether it came to its end."""
    shutil.copytree(moments[0], run.path)
    own = mirror(run, changes)
    try:
        for moment in moments:
            shutil.rmtree(run.path)
            shutil.copytree(moment, run.path)
            own.flush()
    except CutError:
        return False
    return True


def check(run: RunFolder) -> None:
    """What has to hold of a state that a search goes on with."""
    told = {}
    if run.study.exists():
        trials = open_study(run.study).get_trials()
        told = {t.user_attrs["name"]: t.state.name for t in trials if "name" in t.user_attrs}
    records = {record.name: record for record in run.read_trials()}
    assert records.keys() <= told.keys()
    for name, state in told.items():
        if state == "COMPLETE":
            assert records[name].state == "complete"
            assert records[name].measurements[-1].step == 30
    for record in records.values():
        checkpoint = TrialFolder(run.trial(record.name)).read_checkpoint()
        if checkpoint is not None:
            assert checkpoint.step in {m.step for m in read_measurements(run.trial(record.name))}
            state = (checkpoint.path / "state" / "rank_0.pt").read_text()
            assert state == f"{record.name} {checkpoint.step}"
    complete = {name: r.score for name, r in records.items() if r.state == "complete"}
    (*kept,) = keep_best(run, 1)
    assert kept == sorted(complete, key=lambda name: -(complete[name] or 0))[:1]
    for name in kept:
        assert (run.student(name) / "model.safetensors").read_text() == f"weights of {name}"


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_store_cut_off_at_any_point_holds_a_run_that_can_continue(bucket, tmp_path, every):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    moments = story(tmp_path / "story", tmp_path / "moments")
    changes, ended = 0, False
    while not ended:
        changes += every
        home = f"{bucket}/cut-{changes}"
        ended = play(RunFolder(tmp_path / f"driver-{changes}", home), moments, changes)
        if not run_exists(RunFolder(tmp_path / "none", home)):
            continue  # cut off before there was a run
        again = RunFolder(tmp_path / f"again-{changes}", home)
        fetch_run(again)
        check(again)
        # What halves there were go with the first that is sent again.
        resumed = RunMirror(again, print, lambda: None)
        with resumed:
            pass
        objects = {name for name in Store(home).list() if "/.seen" not in name}
        assert objects == {*resumed._sync.known}
    assert changes > 25
    assert [*Store(home).list("students")] == [
        "students/0001/model.safetensors",
        "students/0001/student.json",
    ]
    assert not [name for name in Store(home).list("trials") if "checkpoint" in name]


def test_what_is_another_s_is_left_alone(bucket, tmp_path):
    store = Store(f"{bucket}/data")
    store.write("train.csv", b"text,label")
    run = RunFolder(HandMade(tmp_path / "run", session="first").run.path, store.address)
    with pytest.raises(SpecError, match=r"has other files \(train.csv\) and no run"):
        run_exists(run)
    with mirror(run):
        pass
    assert run_exists(run)
    assert {*store.list()} == {"train.csv", "manifest.json", "space.yaml"}


def test_a_folder_that_is_the_last_session_s_stays_as_it_is(bucket, tmp_path):
    run = RunFolder(HandMade(tmp_path / "run", session="first").run.path, f"{bucket}/first")
    with mirror(run):
        pass
    (run.path / "more").write_text("not sent yet")
    fetch_run(run)
    assert (run.path / "more").exists()
    other = RunFolder(tmp_path / "other", run.remote_uri)
    fetch_run(other)
    assert not (other.path / "more").exists()
    update_manifest(other, session="second")
    with mirror(other):
        pass
    fetch_run(run)
    assert run.read_manifest()["session"] == "second"
    assert not (run.path / "more").exists()


def test_a_driver_that_was_replaced_sends_no_more(bucket, tmp_path):
    run = RunFolder(HandMade(tmp_path / "run", session="first").run.path, f"{bucket}/first")
    own = mirror(run)
    own.flush()
    own._is_started = True
    other = RunFolder(tmp_path / "other", run.remote_uri)
    fetch_run(other)
    update_manifest(other, session="second")
    mirror(other).flush()
    (run.path / "more").write_text("too late")
    with pytest.raises(LostRunError):
        own.flush()
    assert "more" not in Store(f"{bucket}/first").list()


def finished_run(folder: Path, home: str) -> RunFolder:
    """Returns a run of two trials, one of whose students is kept, that its store has all of."""
    story(folder, folder.with_name("moments"))
    run = RunFolder(folder, home)
    with mirror(run):
        pass
    assert not read_tombstones(folder)
    return run


def content(home: str | None) -> dict[str, bytes | None]:
    assert home is not None
    store = Store(home)
    return {name: store.read(name) for name in store.list()}


@pytest.mark.parametrize(
    "lost",
    [
        "students",
        "students/0001/model.safetensors",
        "students/0001/student.json",
        "trials/0000",
        "trials/0000/measurements.jsonl",
        "trials",
        "study.journal",
    ],
)
def test_what_is_lost_here_is_not_removed_there(bucket, tmp_path, lost):
    run = finished_run(tmp_path / "run", f"{bucket}/first")
    before = content(run.remote_uri)
    told: list[str] = []
    with RunMirror(run, told.append, lambda: None) as own:
        remove(run.path / lost)
        (run.path / "note.txt").write_text("one more thing to send")
        own.flush()
        own.flush()
        own.flush()
    assert content(run.remote_uri) == before | {"note.txt": b"one more thing to send"}
    if lost.startswith(("students", "trials")):
        (line,) = told
        assert f"are missing from {run.path}, such as {lost}" in line
    fetch_run(run)
    for name, there in content(run.remote_uri).items():
        assert (run.path / name).read_bytes() == there
    check(run)  # which opens the study
    with mirror(run):
        pass
    assert content(run.remote_uri).keys() == before.keys() | {"note.txt"}


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize("rest", [None, {}, {"seconds": 3.0}, {"session": "another"}])
def test_a_folder_that_is_the_run_s_no_more_is_not_sent(bucket, tmp_path, rest):
    run = finished_run(tmp_path / "run", f"{bucket}/first")
    before = content(run.remote_uri)
    own = mirror(run)
    own.__enter__()
    shutil.rmtree(run.path)
    run.path.mkdir()
    if rest is not None:  # what a search writes that has not noticed
        update_manifest(run, **rest)
    (run.path / "space.yaml").write_text("another")
    with pytest.raises(SpecError, match=r"has lost its manifest\.json, so the search ends"):
        own.__exit__(None, None, None)
    assert content(run.remote_uri) == before
    fetch_run(run)
    check(run)
    with mirror(run):
        pass
    assert content(run.remote_uri).keys() == before.keys()


def test_a_journal_that_lost_trials_is_not_sent(bucket, tmp_path):
    run = finished_run(tmp_path / "run", f"{bucket}/first")
    before = content(run.remote_uri)
    own = mirror(run)
    own.__enter__()
    run.study.unlink()
    open_study(run.study)
    with pytest.raises(SpecError, match=r"study\.journal: has lost trials"):
        own.__exit__(None, None, None)
    assert content(run.remote_uri) == before


def test_what_the_search_removed_goes_after_a_kill_too(bucket, tmp_path):
    home = f"{bucket}/first"
    moments = story(tmp_path / "story", tmp_path / "moments")
    run = RunFolder(tmp_path / "run", home)
    shutil.copytree(moments[-2], run.path)  # both are complete, and none is kept yet
    with mirror(run):
        pass
    assert "trials/0001/student/model.safetensors" in content(home)
    keep_best(run, 1)  # and then the driver is killed
    fetch_run(run)
    assert not (run.trial("0001") / "student").exists()
    with mirror(run):
        pass
    assert [name for name in content(home) if "model.safetensors" in name] == [
        "students/0001/model.safetensors"
    ]
    # A kill before the note of a removal: it is done again.
    run.student("0001").rename(run.path / "aside")
    shutil.copytree(run.path / "aside", run.trial("0001") / "student")
    with mirror(run):
        pass
    keep_best(run, 1)
    with mirror(run):
        pass
    assert [name for name in content(home) if name.endswith("model.safetensors")] == [
        "aside/model.safetensors",
        "students/0001/model.safetensors",
    ]


def test_a_node_whose_cache_is_cleaned_removes_nothing(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("LKD_TUNE_NODE_CACHE", str(tmp_path / "node"))
    home = f"{bucket}/first"
    moments = story(tmp_path / "story", tmp_path / "moments")
    driver = RunFolder(tmp_path / "driver", home)
    shutil.copytree(moments[2], driver.path)  # 0000 has a checkpoint of step 20
    with mirror(driver):
        pass
    before = content(home)
    node = NodeStorage(RunFolder(Path("/nowhere"), home), "0000", "first", str(tmp_path))
    node.pull()
    own = TrialFolder(node.run.trial("0000"))
    shutil.rmtree(own.path / "checkpoint-20")
    node.push()
    assert content(home) == before
    node.pull()
    with own.new_checkpoint(30, 1, 1) as draft:
        (draft / "state.pt").write_text("")
    node.push()
    assert {name.split("/")[2] for name in content(home) if "checkpoint" in name} == {
        "checkpoint-30"
    }
    assert not read_tombstones(node.run.path)


def test_removals_are_noted_where_there_is_a_home_and_nowhere_else(tmp_path):
    run = HandMade(tmp_path / "run").run
    for _ in range(2):
        for folder in ("trials/0000/checkpoint-10", "students/0000", "trials/baseline"):
            (run.path / folder).mkdir(parents=True)
            remove_folder(run.path / folder)
        enable_tombstones(run.path)
    removed = {"trials/0000/checkpoint-10", "students/0000", "trials/baseline"}
    assert read_tombstones(run.path) == removed
    shutil.rmtree(run.path / ".removed")
    remove_folder(run.trial("0000"))
    assert not read_tombstones(run.path)
