"""Local copies of what lies in object stores: runs to be read, models, spec files.

A copy is brought up to date when it is asked for; what has not changed is not sent again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.uri import is_address
from lkd_tune.files.atomic import write_atomically
from lkd_tune.files.cache import cache_dir, node_cache
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import Store, cache_path

# Small objects take a round trip each, so many of them are asked for at a time.
_AT_A_TIME = 16
# An object that is listed and then gone means that the run goes on meanwhile.
_TRIES = 5


def open_run(where: str) -> RunFolder:
    """Returns the folder of a run that is to be searched, or gone on with.

    A search on an object store works in a folder of the cache, which is mirrored there.

    Raises:
        StorageError: If it is an address without a bucket.
    """
    if not is_address(where):
        return RunFolder(Path(where))
    home = Store(where).address
    return RunFolder(cache_dir() / "runs" / cache_path(home), home)


def read_run(where: str, *, students: bool = False) -> RunFolder:
    """Returns the folder of a run that is to be read; of an object store's, a fresh copy.

    Args:
        where: A path or an address.
        students: Whether the students' weights are needed.

    Raises:
        SpecError: If there is no such run.
        StorageError: If the store can't be read.
    """
    if not is_address(where):
        return RunFolder(Path(where))
    store = Store(where)
    home = store.address

    def wanted(name: str) -> bool:
        if name.startswith("students/"):
            return students or name.endswith("/student.json")
        # Checkpoints, students that are not kept yet and logs of trackers tell a reader nothing.
        others = ("teacher/model/", "tensorboard/", "wandb/")
        return not name.startswith(others) and name.count("/") < 3

    if store.read("manifest.json") is None:
        store.list()  # tells of a bucket that is not there
        raise SpecError(Problem(home, "", "is no run: it has no manifest.json"))
    return RunFolder(_copy(store, wanted), home)


@functools.cache
def local_model(model: str) -> str:
    """Returns the folder of a model; of an object store's, a copy; any other name as it is.

    Raises:
        SpecError: If there is no such model.
        StorageError: If the store can't be read.
    """
    if not is_address(model):
        return model
    store = Store(model)
    if "config.json" not in store.list():
        raise SpecError(Problem("", "teacher", f"{model} is no model: it has no config.json"))
    return str(_copy(store, lambda _: True))


def send_model(folder: Path, address: str) -> None:
    """Copies a model's folder to an object store; its config.json, last, says that it is whole.

    Raises:
        StorageError: If the store does not take it.
    """
    store = Store(address)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.name == "config.json", path)):
        with path.open("rb") as file:
            store.upload(path.relative_to(folder).as_posix(), file)


def send_files(run: RunFolder, files: Iterable[Path]) -> None:
    """Copies files of a run to its home, if it has one.

    Raises:
        StorageError: If the store does not take them.
    """
    if run.home is None:
        return
    store = Store(run.home)
    for path in files:
        store.write(path.relative_to(run.path).as_posix(), path.read_bytes())


def local_file(where: str) -> Path:
    """Returns the path of a file; of an object store's, a copy.

    Raises:
        SpecError: If there is no such object.
        StorageError: If the store can't be read.
    """
    if not is_address(where):
        return Path(where)
    folder, _, name = where.rpartition("/")
    store, path = Store(folder), _fetched(folder) / name
    try:
        store.download(name, path)
    except FileNotFoundError:
        store.list()  # tells of a bucket that is not there
        raise SpecError(Problem(where, "", "can't be read: there is no such object")) from None
    return path


def _fetched(address: str) -> Path:
    return node_cache(str(cache_dir())) / "fetched" / cache_path(address)


def _copy(store: Store, wanted: Callable[[str], bool]) -> Path:
    """Returns a folder with the wanted objects of a store, and no others that were once there."""
    folder = _fetched(store.address)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder.with_name(f".{folder.name}.json")
    with FileLock(f"{record}.lock"):
        known = json.loads(record.read_text("utf-8")) if record.exists() else {}
        for left in reversed(range(_TRIES)):
            there = {name: [*stamp] for name, stamp in store.list().items()}
            for name in known.keys() - there.keys():
                (folder / name).unlink(missing_ok=True)
            _remove_empty(folder)
            new = [
                name
                for name, stamp in sorted(there.items())
                if wanted(name) and (known.get(name) != stamp or not (folder / name).exists())
            ]
            try:
                download_all(store, new, folder)
                break
            except FileNotFoundError:
                if left == 0:
                    raise
        had = {name for name in known if known[name] == there.get(name)}
        write_atomically(record, json.dumps({name: there[name] for name in {*had, *new}}))
    return folder


def download_all(store: Store, names: list[str], folder: Path) -> None:
    """Writes objects to files of the same names below a folder, many at a time.

    Raises:
        FileNotFoundError: If one of them is not there (any more).
    """
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for done in [pool.submit(store.download, name, folder / name) for name in names]:
            done.result()


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
