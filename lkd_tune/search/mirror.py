"""A run's folder, mirrored to its object store while it is searched, and fetched from there."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lkd_tune.fetching import download_all
from lkd_tune.search.cluster import quieten_ray
from lkd_tune.search.sync import Stamp, Sync, is_sent, stamps
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.run import RunFolder, write_atomically
from lkd_tune.storage import StorageError, Store

_LOOK_EVERY_S = 2.0
_RECORD = ".mirror.json"


class ReplacedError(StorageError):
    """Another driver goes on with the run."""


class Mirror:
    """Copies what changes in a run's folder to its store, in a thread; a context.

    It looks at the folder only, so the search need not know of it. What is cut off by a kill is
    gone as far as it was not sent yet: the store then holds the run as it was a moment before.
    While the store can't be reached the search goes on, and what is missing is sent later.

    Args:
        run: A run with a home; its manifest has this session already.
        tell: Told, in the thread, what the user should know.
        on_replaced: Called, in the thread, when another driver has taken over the run.
    """

    def __init__(
        self, run: RunFolder, tell: Callable[[str], None], on_replaced: Callable[[], None]
    ):
        assert run.home is not None
        self._run, self._tell, self._on_replaced = run, tell, on_replaced
        self._sync = Sync(Store(run.home), run.path)
        self._session = run.read_manifest().get("session")
        self._begun = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def __enter__(self) -> Mirror:
        record = _read_record(self._run.path)
        # What a kill left of trials and students is ours, too; anything else may be another's.
        self._sync.known = {
            name: record.get(name)
            for name in self._sync.store.list()
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
        except StorageError as trouble:
            if error is not None:
                return
            if isinstance(trouble, ReplacedError):
                raise
            message = (
                f"{trouble}; what is not there yet lies in {self._run.path}, and "
                f"`lkd-tune search --resume {self._run.where}` here sends it"
            )
            raise StorageError(Problem("", "", message)) from None

    def flush(self) -> None:
        """Sends all that has changed, now.

        Raises:
            ReplacedError: If another driver goes on with the run.
            StorageError: If the store does not take it.
        """
        with self._lock:
            while True:
                try:
                    self._pass()
                    return
                except FileNotFoundError:
                    continue  # something was moved meanwhile, as a student that is kept

    def take_in(self, trial: str, *, checkpoint: bool) -> None:
        """Fetches what a trial left that ran on a node which does not see this folder."""
        self._sync.pull_trial(trial, checkpoint=checkpoint)
        self._sync.pull_missing("latencies")

    def take_in_if_ahead(self, trial: str) -> None:
        """Fetches a trial whose worker was lost, if its store knows more of it than its folder."""
        if self._sync.is_ahead(trial):
            self.take_in(trial, checkpoint=True)

    def _pass(self) -> None:
        # A trial is in the study before it has a folder, and its folder has an outcome before the
        # study is told. So: first which trials there are, then the study, then their files.
        trials = {path.name for path in self._run.path.glob("trials/*")}
        known = {*self._sync.known}  # what is fetched from here on is not to be missed
        contents, study = {}, {}
        if self._run.study.exists():
            status = self._run.study.stat()
            study = {self._run.study.name: (status.st_size, status.st_mtime_ns)}
            lines = self._run.study.read_bytes()
            contents = {self._run.study.name: lines[: lines.rfind(b"\n") + 1]}
        here = {
            name: stamp
            for name, stamp in stamps(self._run.path).items()
            if not name.startswith("trials/") or name.split("/")[1] in trials
        } | study
        gone = known - here.keys()
        if not gone and all(self._sync.known.get(name) == stamp for name, stamp in here.items()):
            return
        if self._begun:
            manifest = self._sync.store.read("manifest.json")
            if manifest is not None and json.loads(manifest).get("session") != self._session:
                message = "another driver goes on with the run, so this one ends"
                raise ReplacedError(Problem(self._run.where, "", message))
        self._sync.push(here, gone, contents)
        sent = {name: stamp for name, stamp in self._sync.known.copy().items() if stamp is not None}
        write_atomically(self._run.path / _RECORD, json.dumps(sent))

    def _follow(self) -> None:
        trouble = False
        while not self._ended.wait(_LOOK_EVERY_S):
            try:
                self.flush()
            except ReplacedError as error:
                self._tell(str(error))
                self._on_replaced()
                return
            except StorageError as error:
                if not trouble:
                    self._tell(f"{error}; the search goes on, and what is missing is sent later")
                trouble = True
                continue
            if trouble:
                self._tell(f"{self._run.where} has everything again")
            trouble = False


def holds_search(run: RunFolder) -> bool:
    """Whether there is a run, in its store if it has one.

    Raises:
        SpecError: If other things lie where the run is to be in its store.
        StorageError: If the store can't be written.
    """
    if run.home is None:
        return run.manifest.exists()
    store = Store(run.home)
    store.check_writable()
    there = [name for name in store.list() if is_sent(name)]
    if there and "manifest.json" not in there:
        message = f"holds other things ({there[0]}), and no run; name another folder"
        raise SpecError(Problem(run.home, "", message))
    return bool(there)


def fetch_state(run: RunFolder) -> None:
    """Makes the folder of a run with a home what its store has, to go on with.

    If the last session was this folder's it is left as it is: it has all that the store has.

    Raises:
        SpecError: If there is no such run.
        StorageError: If the store can't be read.
    """
    assert run.home is not None
    store = Store(run.home)
    manifest = store.read("manifest.json")
    if manifest is None:
        store.list()  # tells of a bucket that is not there
        raise SpecError(Problem(run.home, "", "is no run: it has no manifest.json"))
    session = json.loads(manifest).get("session")
    if run.manifest.exists() and run.read_manifest().get("session") == session:
        return
    clear(run)
    names = [name for name in store.list() if is_sent(name)]
    # The manifest last: a folder with one is whole.
    download_all(store, [name for name in names if name != "manifest.json"], run.path)
    _remove_halves(run)
    download_all(store, ["manifest.json"], run.path)
    record = {name: stamp for name, stamp in stamps(run.path).items() if name in names}
    write_atomically(run.path / _RECORD, json.dumps(record))


def clear(run: RunFolder) -> None:
    """Removes what an earlier search left in the folder that a run with a home works in."""
    if run.home is None or not run.path.exists():
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
    from lkd_tune.search.study import names_in

    drawn = names_in(run.study)
    for trial in run.path.glob("trials/*"):
        # What the study does not know of was never drawn, and will be, perhaps as another.
        if not (trial / "spec.json").exists() or (trial.name.isdigit() and trial.name not in drawn):
            shutil.rmtree(trial)
            continue
        for folder, mark in [(trial / "student", "student.json")] + [
            (path, "trial.json") for path in trial.glob("checkpoint-*")
        ]:
            if folder.exists() and not (folder / mark).exists():
                shutil.rmtree(folder)
    for student in run.students.glob("*"):
        outcome = run.trial(student.name) / "outcome.json"
        if not (student / "student.json").exists() or not outcome.exists():
            shutil.rmtree(student)


def _read_record(folder: Path) -> dict[str, Stamp]:
    path = folder / _RECORD
    if not path.exists():
        return {}
    return {name: (size, time) for name, (size, time) in json.loads(path.read_text()).items()}
