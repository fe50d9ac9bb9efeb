"""Local copies of objects in object stores: runs to read, models and spec files.

A copy is updated on each request; unchanged objects are not downloaded again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.shipped import shipped_teacher
from lkd_tune.config.uri import is_uri
from lkd_tune.files.atomic import write_atomically
from lkd_tune.files.cache import cache_dir, node_cache
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import Store, cache_path

# Each small object takes a round trip, so several are downloaded at the same time.
_PARALLEL_DOWNLOADS = 16
# A search may remove an object after it was listed; then the store is listed again.
_MAX_LISTINGS = 5


def open_run(where: str) -> RunFolder:
    """Returns the folder of a run that is to be started or resumed.

    The folder of a run on an object store is in the cache; the search mirrors it to the store.

    Raises:
        StorageError: If the address has no bucket.
    """
    if not is_uri(where):
        return RunFolder(Path(where))
    remote_uri = Store(where).address
    return RunFolder(cache_dir() / "runs" / cache_path(remote_uri), remote_uri)


def read_run(where: str, *, students: bool = False) -> RunFolder:
    """Returns the folder of a run that is to be read; a current copy, if it is on an object store.

    Args:
        where: A path or an address.
        students: Whether to download the students' weights.

    Raises:
        SpecError: If the store has no such run.
        StorageError: If the store can't be read.
    """
    if not is_uri(where):
        return RunFolder(Path(where))
    store = Store(where)

    def is_wanted(name: str) -> bool:
        if name.startswith("students/"):
            return students or name.endswith("/student.json")
        # Readers do not need checkpoints, students that are not kept yet, and trackers' logs.
        unwanted = ("teacher/model/", "tensorboard/", "wandb/")
        return not name.startswith(unwanted) and name.count("/") < 3

    if store.read("manifest.json") is None:
        store.list()  # raises an error if the bucket does not exist
        raise SpecError(Problem(store.address, "", "is not a run: it has no manifest.json"))
    return RunFolder(_update_copy(store, is_wanted), store.address)


@functools.cache
def local_model(model: str) -> str:
    """Returns the folder of a model: a copy, if it is on an object store; a shipped teacher's; any
    other path or hub id unchanged.

    Raises:
        SpecError: If the store has no such model.
        StorageError: If the store can't be read.
    """
    if not is_uri(model):
        return str(shipped_teacher(model) or model)
    store = Store(model)
    if "config.json" not in store.list():
        message = f"{model} is not a model: it has no config.json"
        raise SpecError(Problem("", "teacher", message))
    return str(_update_copy(store, lambda _: True))


def send_model(folder: Path, address: str) -> None:
    """Uploads a model's folder; config.json last, which marks it as complete.

    Raises:
        StorageError: If the store can't be written.
    """
    store = Store(address)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.name == "config.json", path)):
        with path.open("rb") as file:
            store.upload(path.relative_to(folder).as_posix(), file)


def send_files(run: RunFolder, files: Iterable[Path]) -> None:
    """Uploads files of a run, if it is on an object store.

    Raises:
        StorageError: If the store can't be written.
    """
    if run.remote_uri is None:
        return
    store = Store(run.remote_uri)
    for path in files:
        store.write(path.relative_to(run.path).as_posix(), path.read_bytes())


def local_file(where: str) -> Path:
    """Returns the path of a file; of a copy, if it is on an object store.

    Raises:
        SpecError: If there is no such object.
        StorageError: If the store can't be read.
    """
    if not is_uri(where):
        return Path(where)
    folder, _, name = where.rpartition("/")
    store, path = Store(folder), _copy_of(folder) / name
    try:
        store.download(name, path)
    except FileNotFoundError:
        store.list()  # raises an error if the bucket does not exist
        raise SpecError(Problem(where, "", "can't be read: there is no such object")) from None
    return path


def download_all(store: Store, names: list[str], folder: Path) -> None:
    """Downloads objects to files of the same names below a folder, several at a time.

    Raises:
        FileNotFoundError: If one of them does not exist.
    """
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for download in [pool.submit(store.download, name, folder / name) for name in names]:
            download.result()


def _copy_of(address: str) -> Path:
    return node_cache(str(cache_dir())) / "fetched" / cache_path(address)


def _update_copy(store: Store, is_wanted: Callable[[str], bool]) -> Path:
    """Returns the copy of a store: the wanted objects, without those that were removed there."""
    folder = _copy_of(store.address)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder.with_name(f".{folder.name}.json")
    with FileLock(f"{record}.lock"):
        known = json.loads(record.read_text("utf-8")) if record.exists() else {}
        for listings_left in reversed(range(_MAX_LISTINGS)):
            stored = {name: [*stamp] for name, stamp in store.list().items()}
            for name in known.keys() - stored.keys():
                (folder / name).unlink(missing_ok=True)
            _remove_empty_folders(folder)
            new = [
                name
                for name, stamp in sorted(stored.items())
                if is_wanted(name) and (known.get(name) != stamp or not (folder / name).exists())
            ]
            try:
                download_all(store, new, folder)
                break
            except FileNotFoundError:
                if listings_left == 0:
                    raise
        unchanged = {name for name in known if known[name] == stored.get(name)}
        stamps = {name: stored[name] for name in {*unchanged, *new}}
        write_atomically(record, json.dumps(stamps))
    return folder


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
