"""A run's folder, mirrored to its object store while it is searched, and fetched from there."""

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
    forget_notes,
    is_below,
    keep_notes,
    note_removal,
    read_notes,
)
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.fetch import download_all
from lkd_tune.storage.object_store import StorageError, Store
from lkd_tune.tuning.mirror.sync import Stamp, Sync, is_sent, stamps

# Seconds from one look to the next: 20 times what the last one took, so that looking at a large
# run, and sending its journal, which goes as a whole, stay a small part of the machine's work.
_LOOK_EVERY_S = 2.0
_LOOK_AT_LEAST_EVERY_S = 60.0
_TIMES_ITS_LENGTH = 20.0
_RECORD = ".mirror.json"


class LostRunError(SpecError):
    """The run is not this driver's any more: another goes on with it, or its folder was cleaned."""


class Mirror:
    """Copies what changes in a run's folder to its store, in a thread; a context.

    It looks at the folder only, so the search need not know of it. What is cut off by a kill is
    gone as far as it was not sent yet: the store then holds the run as it was a moment before.
    While the store can't be reached trials go on, those that begin wait, and what is missing is
    sent later. The store loses only what the search itself removed: not what is missing in the
    folder for another reason, as when a cache is cleaned.

    Args:
        run: A run with a home; its manifest has this session already.
        tell: Told, in the thread, what the user should know.
        on_lost: Called, in the thread, when the run is not this driver's any more.
    """

    def __init__(self, run: RunFolder, tell: Callable[[str], None], on_lost: Callable[[], None]):
        assert run.remote_uri is not None
        self._run, self._tell, self._on_lost = run, tell, on_lost
        self._sync = Sync(Store(run.remote_uri), run.path)
        self._session = run.read_manifest().get("session")
        self._begun = False
        self._journal_bytes = 0  # of the study, in the store
        self._lost: set[str] | None = set()  # what was missing when last looked; None: told
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def __enter__(self) -> Mirror:
        keep_notes(self._run.path)
        record, there = _read_record(self._run.path), self._sync.store.list()
        self._journal_bytes = there.get(self._run.study.name, (0, 0))[0]
        # What a kill left of trials and students is ours, too; anything else may be another's.
        self._sync.known = {
            name: record.get(name)
            for name in there
            if name in record or (name.startswith(("trials/", "students/")) and is_sent(name))
        }
        self.flush()
        self._begun = True
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self.flush()
        except (SpecError, OSError) as trouble:
            if error is not None:
                return
            if isinstance(trouble, LostRunError):
                raise
            message = (
                f"{trouble}; what is not there yet lies in {self._run.path}, and "
                f"`lkd-tune search --resume {self._run.where}` here sends it"
            )
            raise StorageError(Problem("", "", message)) from None

    def flush(self) -> None:
        """Sends all that has changed, now.

        Raises:
            LostRunError: If the run is not this driver's any more.
            StorageError: If the store does not take it.
        """
        with self._lock:
            while True:
                try:
                    self._pass()
                    return
                except FileNotFoundError:
                    continue  # something was moved meanwhile, as a student that is kept

    def fetch_trial(self, trial: str, *, checkpoint: bool) -> None:
        """Fetches what a trial left that ran on a node which does not see this folder."""
        self._sync.pull_trial(trial, checkpoint=checkpoint)
        self._sync.pull_missing("latencies")

    def fetch_trial_if_ahead(self, trial: str) -> None:
        """Fetches a trial whose worker was lost, if its store knows more of it than its folder."""
        if self._sync.is_ahead(trial):
            self.fetch_trial(trial, checkpoint=True)

    def _pass(self) -> None:
        self._check_folder()
        removed = read_notes(self._run.path)
        # A trial is in the study before it has a folder, and its folder has an outcome before the
        # study is told. So: first which trials there are, then the study, then their files.
        trials = {path.name for path in self._run.path.glob("trials/*")}
        known = {*self._sync.known}  # what is fetched from here on is not to be missed
        contents, study = {}, {}
        if self._run.study.exists():
            status, name = self._run.study.stat(), self._run.study.name
            study = {name: (status.st_size, status.st_mtime_ns)}
            if self._sync.known.get(name) != study[name]:
                contents = {name: self._read_study()}
        here = {
            name: stamp
            for name, stamp in stamps(self._run.path).items()
            if not name.startswith("trials/") or name.split("/")[1] in trials
        } | study
        missing = known - here.keys()
        gone = {name for name in missing if is_below(name, removed)}
        ours = ("trials/", "students/")  # trackers remove files of their own
        self._tell_of_lost({name for name in missing - gone if name.startswith(ours)})
        if gone or any(self._sync.known.get(name) != stamp for name, stamp in here.items()):
            self._refuse_if_replaced()
            all_gone = self._sync.push(here, gone, contents)
            self._journal_bytes = sum(map(len, contents.values())) or self._journal_bytes
            sent = {name: stamp for name, stamp in self._sync.known.copy().items() if stamp}
            write_atomically(self._run.path / _RECORD, json.dumps(sent))
            if not all_gone:
                return
        forget_notes(self._run.path, removed)

    def _check_folder(self) -> None:
        """Refuses to take another folder for the run, or what a cleaned cache has left of it."""
        manifest = self._run.manifest
        if manifest.exists() and self._run.read_manifest().get("session") == self._session:
            return
        message = (
            f"has lost its manifest.json, so the search ends; `lkd-tune search --resume "
            f"{self._run.remote_uri}` goes on with what is there"
        )
        raise LostRunError(Problem(str(self._run.path), "", message))

    def _read_study(self) -> bytes:
        content = self._run.study.read_bytes()
        lines = content[: content.rfind(b"\n") + 1]
        if len(lines) < self._journal_bytes:  # it only ever grows
            message = (
                "has lost trials, so the search ends; remove it, and `lkd-tune search --resume "
                f"{self._run.remote_uri}` goes on with what is there"
            )
            raise LostRunError(Problem(str(self._run.study), "", message))
        return lines

    def _tell_of_lost(self, lost: set[str]) -> None:
        """Tells, once, of files that are gone though the search did not remove them."""
        if self._lost is None:
            return
        # Twice: a note of a removal comes a moment after it.
        if again := sorted(self._lost & lost):
            message = f"{len(again)} file(s) have gone from {self._run.path}, as {again[0]}"
            self._tell(f"{message}; {self._run.remote_uri} keeps them, and --resume fetches them")
        self._lost = None if again else lost

    def _refuse_if_replaced(self) -> None:
        manifest = self._sync.store.read("manifest.json") if self._begun else None
        if manifest is not None and json.loads(manifest).get("session") != self._session:
            message = "another driver goes on with the run, so this one ends"
            raise LostRunError(Problem(self._run.where, "", message))

    def _follow(self) -> None:
        trouble, pause = False, _LOOK_EVERY_S
        while not self._ended.wait(pause):
            began = time.monotonic()
            try:
                self.flush()
            except LostRunError as error:
                self._tell(str(error))
                self._on_lost()
                return
            except Exception as error:  # whatever it is, the search is not to lose its mirror
                if not trouble:
                    what = str(error) if isinstance(error, SpecError) else f"mirror: {error!r}"
                    self._tell(f"{what}; the search goes on, and what is missing is sent later")
                trouble = True
                continue
            took = time.monotonic() - began
            pause = min(max(_LOOK_EVERY_S, _TIMES_ITS_LENGTH * took), _LOOK_AT_LEAST_EVERY_S)
            if trouble:
                self._tell(f"{self._run.where} has everything again")
            trouble = False


def holds_search(run: RunFolder) -> bool:
    """Whether there is a run, in its store if it has one.

    Raises:
        SpecError: If other things lie where the run is to be in its store.
        StorageError: If the store can't be written.
    """
    if run.remote_uri is None:
        return run.manifest.exists()
    store = Store(run.remote_uri)
    store.check_writable()
    there = [name for name in store.list() if is_sent(name)]
    if there and "manifest.json" not in there:
        message = f"holds other things ({there[0]}), and no run; name another folder"
        raise SpecError(Problem(run.remote_uri, "", message))
    return bool(there)


def fetch_state(run: RunFolder) -> None:
    """Makes the folder of a run with a home what its store has, to go on with.

    If the last session was this folder's it has all that the store has, and perhaps more: only what
    has gone from it since, as from a cache that was cleaned, is fetched. To be called with the run
    locked.

    Raises:
        SpecError: If there is no such run.
        StorageError: If the store can't be read.
    """
    assert run.remote_uri is not None
    store = Store(run.remote_uri)
    manifest = store.read("manifest.json")
    if manifest is None:
        store.list()  # tells of a bucket that is not there
        raise SpecError(Problem(run.remote_uri, "", "is no run: it has no manifest.json"))
    session = json.loads(manifest).get("session")
    if not run.manifest.exists() or run.read_manifest().get("session") != session:
        clear(run)
    keep_notes(run.path)
    record, removed = _read_record(run.path), read_notes(run.path)
    lacking = {
        name
        for name in store.list()
        if is_sent(name) and not is_below(name, removed) and not (run.path / name).exists()
    }
    if not lacking:
        return
    # The manifest last: a folder with one is whole, but for what goes from it later.
    last = lacking & {run.manifest.name}
    download_all(store, sorted(lacking - last), run.path)
    _remove_halves(run)
    download_all(store, [*last], run.path)
    record |= {name: stamp for name, stamp in stamps(run.path).items() if name in lacking}
    write_atomically(run.path / _RECORD, json.dumps(record))


def clear(run: RunFolder) -> None:
    """Removes what an earlier search left in the folder that a run with a home works in."""
    if run.remote_uri is None or not run.path.exists():
        return
    run.manifest.unlink(missing_ok=True)
    for path in run.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".driver.lock":
            path.unlink()


def _remove_halves(run: RunFolder) -> None:
    """Removes what was sent by halves when the last session was cut off."""
    quieten_ray()
    from lkd_tune.tuning.study.journal import trial_names

    drawn = trial_names(run.study)
    halves = []
    for trial in run.path.glob("trials/*"):
        # What the study does not know of was never drawn, and will be, perhaps as another.
        if not (trial / "spec.json").exists() or (trial.name.isdigit() and trial.name not in drawn):
            halves.append(trial)
            continue
        for folder, mark in [(trial / "student", "student.json")] + [
            (path, "trial.json") for path in trial.glob("checkpoint-*")
        ]:
            if folder.exists() and not (folder / mark).exists():
                halves.append(folder)
    for student in run.students.glob("*"):
        outcome = run.trial(student.name) / "outcome.json"
        if not (student / "student.json").exists() or not outcome.exists():
            halves.append(student)
    for half in halves:
        shutil.rmtree(half)
        note_removal(half)


def _read_record(folder: Path) -> dict[str, Stamp]:
    path = folder / _RECORD
    if not path.exists():
        return {}
    return {name: (size, time) for name, (size, time) in json.loads(path.read_text()).items()}
