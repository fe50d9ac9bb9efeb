"""A run's folder, mirrored to its object store during a search, and fetched from there."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lkd_tune.cluster.ray import quieten_ray
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.files.atomic import write_atomically
from lkd_tune.files.tombstones import (
    add_tombstone,
    drop_tombstones,
    enable_tombstones,
    is_below,
    read_tombstones,
)
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.fetch import download_all
from lkd_tune.storage.object_store import StorageError, Store
from lkd_tune.tuning.mirror.sync import Stamp, Sync, is_mirrored, list_stamps

# The pause between two passes is 20 times the length of the last one, within these limits. So a
# large run, whose journal is always uploaded as a whole, does not keep the machine busy.
_MIN_PAUSE_S, _MAX_PAUSE_S = 2.0, 60.0
_PAUSE_PER_PASS = 20.0
_RECORD = ".mirror.json"


class LostRunError(SpecError):
    """This driver has lost the run: another driver has resumed it, or its folder was cleaned."""


class RunMirror:
    """Uploads what changes in a run's folder to its store, in a thread; a context.

    It reads the folder only, so that the search does not depend on it. If the process is killed,
    the store has the run as it was shortly before. While the store can't be reached, running trials
    continue, new ones wait, and what is missing is uploaded later. Objects are removed only if the
    search removed their files, not if these are missing for another reason, such as a cleaned
    cache.

    Args:
        run: A run on an object store; its manifest has this session already.
        report: Called in the thread with messages for the user.
        on_lost: Called in the thread when this driver has lost the run.
    """

    def __init__(self, run: RunFolder, report: Callable[[str], None], on_lost: Callable[[], None]):
        assert run.remote_uri is not None
        self._run, self._report, self._on_lost = run, report, on_lost
        self._sync = Sync(Store(run.remote_uri), run.path)
        self._session = run.read_manifest().get("session")
        self._is_started = False
        self._journal_bytes = 0  # of the study in the store
        # Files missing in the last pass; None after they were reported.
        self._missing: set[str] | None = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run_passes, name="mirror", daemon=True)

    def __enter__(self) -> RunMirror:
        enable_tombstones(self._run.path)
        record, stored = _read_record(self._run.path), self._sync.store.list()
        self._journal_bytes = stored.get(self._run.study.name, (0, 0))[0]
        # Trials and students of a session that was killed belong to this run too; other objects may
        # not.
        self._sync.known = {
            name: record.get(name)
            for name in stored
            if name in record or (name.startswith(("trials/", "students/")) and is_mirrored(name))
        }
        self.flush()
        self._is_started = True
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self.flush()
        except (SpecError, OSError) as problem:
            if error is not None:
                return
            if isinstance(problem, LostRunError):
                raise
            message = (
                f"{problem}; the rest is in {self._run.path}; to upload it, run "
                f"`{self._run.resume_command}` on this machine"
            )
            raise StorageError(Problem("", "", message)) from None

    def flush(self) -> None:
        """Uploads everything that has changed.

        Raises:
            LostRunError: If this driver has lost the run.
            StorageError: If the store can't be written.
        """
        with self._lock:
            while True:
                try:
                    self._pass()
                    return
                except FileNotFoundError:
                    continue  # something was moved meanwhile, such as a student that is kept

    def fetch_trial(self, trial: str, *, checkpoint: bool) -> None:
        """Downloads the results of a trial that ran on a node which does not see this folder."""
        self._sync.pull_trial(trial, checkpoint=checkpoint)
        self._sync.pull_missing("latencies")

    def fetch_trial_if_ahead(self, trial: str) -> None:
        """Downloads a trial whose worker was lost, if the store has more of it than this folder."""
        if self._sync.is_ahead(trial):
            self.fetch_trial(trial, checkpoint=True)

    def _pass(self) -> None:
        self._check_folder()
        removed = read_tombstones(self._run.path)
        # A trial is in the study before it has a folder, and its outcome is in the folder before it
        # is in the study. So this lists the trials first, then reads the study, then the files.
        trials = {path.name for path in self._run.path.glob("trials/*")}
        known = {*self._sync.known}  # without what other threads download from here on
        contents, study = {}, {}
        if self._run.study.exists():
            status, name = self._run.study.stat(), self._run.study.name
            study = {name: (status.st_size, status.st_mtime_ns)}
            if self._sync.known.get(name) != study[name]:
                contents = {name: self._read_study()}
        local = {
            name: stamp
            for name, stamp in list_stamps(self._run.path).items()
            if not name.startswith("trials/") or name.split("/")[1] in trials
        } | study
        missing = known - local.keys()
        gone = {name for name in missing if is_below(name, removed)}
        ours = ("trials/", "students/")  # trackers remove files themselves
        self._report_missing({name for name in missing - gone if name.startswith(ours)})
        if gone or any(self._sync.known.get(name) != stamp for name, stamp in local.items()):
            self._refuse_if_replaced()
            is_done = self._sync.push(local, gone, contents)
            self._journal_bytes = sum(map(len, contents.values())) or self._journal_bytes
            uploaded = {name: stamp for name, stamp in self._sync.known.copy().items() if stamp}
            write_atomically(self._run.path / _RECORD, json.dumps(uploaded))
            if not is_done:
                return
        drop_tombstones(self._run.path, removed)

    def _check_folder(self) -> None:
        """Raises LostRunError if the folder is another run's, or what a cleaned cache has left."""
        manifest = self._run.manifest
        if manifest.exists() and self._run.read_manifest().get("session") == self._session:
            return
        message = (
            f"has lost its manifest.json, so the search ends; to continue with what is in the "
            f"store, run `{self._run.resume_command}`"
        )
        raise LostRunError(Problem(str(self._run.path), "", message))

    def _read_study(self) -> bytes:
        content = self._run.study.read_bytes()
        lines = content[: content.rfind(b"\n") + 1]
        if len(lines) < self._journal_bytes:  # it only ever grows
            message = (
                "has lost trials, so the search ends; to continue with what is in the store, "
                f"remove the file and run `{self._run.resume_command}`"
            )
            raise LostRunError(Problem(str(self._run.study), "", message))
        return lines

    def _report_missing(self, missing: set[str]) -> None:
        """Reports, once, files that are missing though the search did not remove them."""
        if self._missing is None:
            return
        # In two passes, because a tombstone is written shortly after the removal.
        if still_missing := sorted(self._missing & missing):
            number, first = len(still_missing), still_missing[0]
            message = f"{number} file(s) are missing from {self._run.path}, such as {first}"
            message += f"; {self._run.remote_uri} still has them, and --resume fetches them"
            self._report(message)
        self._missing = None if still_missing else missing

    def _refuse_if_replaced(self) -> None:
        manifest = self._sync.store.read("manifest.json") if self._is_started else None
        if manifest is not None and json.loads(manifest).get("session") != self._session:
            message = "another driver has resumed the run, so this one ends"
            raise LostRunError(Problem(self._run.where, "", message))

    def _run_passes(self) -> None:
        is_failing, pause_s = False, _MIN_PAUSE_S
        while not self._ended.wait(pause_s):
            start = time.monotonic()
            try:
                self.flush()
            except LostRunError as error:
                self._report(str(error))
                self._on_lost()
                return
            except Exception as error:  # no error may end the mirror before the search
                if not is_failing:
                    message = str(error) if isinstance(error, SpecError) else f"mirror: {error!r}"
                    self._report(f"{message}; the search continues, and retries the upload")
                is_failing = True
                continue
            pause_s = _PAUSE_PER_PASS * (time.monotonic() - start)
            pause_s = min(max(_MIN_PAUSE_S, pause_s), _MAX_PAUSE_S)
            if is_failing:
                self._report(f"{self._run.where} is up to date again")
            is_failing = False


def run_exists(run: RunFolder) -> bool:
    """Whether the run was started before; on its object store, if it has one.

    Raises:
        SpecError: If the store has other objects in the place of the run.
        StorageError: If the store can't be written.
    """
    if run.remote_uri is None:
        return run.manifest.exists()
    store = Store(run.remote_uri)
    store.check_writable()
    stored = [name for name in store.list() if is_mirrored(name)]
    if stored and "manifest.json" not in stored:
        message = f"has other files ({stored[0]}) and no run; choose another folder"
        raise SpecError(Problem(run.remote_uri, "", message))
    return bool(stored)


def fetch_run(run: RunFolder) -> None:
    """Makes the folder of a run on an object store equal to the store, to resume the run.

    If the last session ran in this folder, it has everything that the store has, and perhaps more.
    Then only files that are missing, such as those of a cleaned cache, are downloaded. The caller
    has to hold the run's lock.

    Raises:
        SpecError: If there is no such run.
        StorageError: If the store can't be read.
    """
    assert run.remote_uri is not None
    store = Store(run.remote_uri)
    manifest = store.read("manifest.json")
    if manifest is None:
        store.list()  # raises an error if the bucket does not exist
        raise SpecError(Problem(run.remote_uri, "", "is not a run: it has no manifest.json"))
    session = json.loads(manifest).get("session")
    if not run.manifest.exists() or run.read_manifest().get("session") != session:
        clear_folder(run)
    enable_tombstones(run.path)
    record, removed = _read_record(run.path), read_tombstones(run.path)
    missing = {
        name
        for name in store.list()
        if is_mirrored(name) and not is_below(name, removed) and not (run.path / name).exists()
    }
    if not missing:
        return
    # The manifest is last: a folder with a manifest is complete.
    last = missing & {run.manifest.name}
    download_all(store, sorted(missing - last), run.path)
    _remove_incomplete(run)
    download_all(store, [*last], run.path)
    record |= {name: stamp for name, stamp in list_stamps(run.path).items() if name in missing}
    write_atomically(run.path / _RECORD, json.dumps(record))


def clear_folder(run: RunFolder) -> None:
    """Removes what an earlier search left in the local folder of a run on an object store."""
    if run.remote_uri is None or not run.path.exists():
        return
    run.manifest.unlink(missing_ok=True)
    for path in run.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".driver.lock":
            path.unlink()


def _remove_incomplete(run: RunFolder) -> None:
    """Removes what was uploaded incompletely because the last session was killed."""
    quieten_ray()
    from lkd_tune.tuning.study.journal import trial_names

    known = {*trial_names(run.study), *run.read_comparisons()}
    incomplete = []
    for trial in run.path.glob("trials/*"):
        # A trial that is not in the study will be drawn again, perhaps with other parameters.
        if not (trial / "spec.json").exists() or (trial.name.isdigit() and trial.name not in known):
            incomplete.append(trial)
            continue
        for folder, mark in [(trial / "student", "student.json")] + [
            (path, "trial.json") for path in trial.glob("checkpoint-*")
        ]:
            if folder.exists() and not (folder / mark).exists():
                incomplete.append(folder)
    for student in run.students.glob("*"):
        outcome = run.trial(student.name) / "outcome.json"
        if not (student / "student.json").exists() or not outcome.exists():
            incomplete.append(student)
    for folder in incomplete:
        shutil.rmtree(folder)
        add_tombstone(folder)


def _read_record(folder: Path) -> dict[str, Stamp]:
    path = folder / _RECORD
    if not path.exists():
        return {}
    return {
        name: (size, time) for name, (size, time) in json.loads(path.read_text("utf-8")).items()
    }
