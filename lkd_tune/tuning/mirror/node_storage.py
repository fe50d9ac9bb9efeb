"""The files of a trial of a mirrored run, on a node that may not see the driver's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.files.cache import node_cache
from lkd_tune.files.tombstones import (
    drop_tombstones,
    enable_tombstones,
    is_below,
    read_tombstones,
)
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import StorageError, Store, cache_path, retry_until_available
from lkd_tune.tuning.mirror.sync import Sync, list_stamps


class NodeStorage:
    """Where a trial reads and writes its files on this node.

    If this node sees the driver's folder, which its manifest shows, that folder is used, and the
    driver uploads what the trial writes. Otherwise the folder is in the node's cache: the trial
    downloads what it needs to resume, and uploads what it has written before it reports a result.
    While the store can't be reached, the trial waits.

    Args:
        run: The run, with the driver's folder and the address of its store.
        trial: The trial's name.
        session: The driver's session.
        cache: The driver's cache.

    Attributes:
        run: The run, with its folder on this node.
        is_remote: Whether that folder is another one than the driver's.
    """

    def __init__(self, run: RunFolder, trial: str, session: str, cache: str):
        assert run.remote_uri is not None
        try:
            self.is_remote = run.read_manifest().get("session") != session
        except SpecError:
            self.is_remote = True
        own = RunFolder(node_cache(cache) / "runs" / cache_path(run.remote_uri), run.remote_uri)
        self.run = own if self.is_remote else run
        self._trial = trial
        self._sync = Sync(Store(run.remote_uri), self.run.path)

    def read_manifest(self) -> dict[str, Any]:
        """Returns the run's manifest as it is now.

        Raises:
            SpecError: If the folder that this node shares with the driver has no manifest anymore.
            StorageError: If the store can't be reached or has no manifest, for an hour.
        """
        if self.is_remote:
            return retry_until_available(self._download_manifest)
        return self.run.read_manifest()

    def pull(self) -> None:
        """Downloads what the trial needs to resume, if it is not here."""
        retry_until_available(self._pull)

    def push(self) -> None:
        """Uploads what the trial has written, if the driver does not see it."""
        if self.is_remote:
            retry_until_available(self._push)

    def _download_manifest(self) -> dict[str, Any]:
        store = self._sync.store
        content = store.read("manifest.json")
        if content is None:
            # No driver removes it, so what answered is not the store, or not ready yet.
            raise StorageError(Problem(store.address, "", "the run's manifest.json is missing"))
        return json.loads(content)

    def _pull(self) -> None:
        if not self.is_remote:
            if self._sync.is_ahead(self._trial):
                self._sync.pull_trial(self._trial, checkpoint=True)
            return
        enable_tombstones(self.run.path)
        drop_tombstones(self.run.path, self._removed())  # of a session that was killed
        self._sync.pull_trial(self._trial, checkpoint=True)
        self._sync.pull_missing("latencies")

    def _push(self) -> None:
        folder, removed = f"trials/{self._trial}", self._removed()
        local = list_stamps(self.run.path, folder) | list_stamps(self.run.path, "latencies")
        gone = [name for name in self._sync.known if name not in local and is_below(name, removed)]
        if self._sync.push(local, gone):
            drop_tombstones(self.run.path, removed)
        if f"{folder}/outcome.json" in local:  # the trial has ended; the driver downloads the rest
            shutil.rmtree(self.run.path / folder)
            self._sync.known = {}

    def _removed(self) -> set[str]:
        """Returns the folders of this trial that were removed."""
        own = f"trials/{self._trial}/"
        return {folder for folder in read_tombstones(self.run.path) if folder.startswith(own)}


def node_storage_of(config: dict[str, Any]) -> NodeStorage | None:
    """Returns the storage of a trial by its config, None if the run is not mirrored."""
    if config.get("remote_uri") is None:
        return None
    run = RunFolder(Path(config["run"]), config["remote_uri"])
    return NodeStorage(run, config["name"], config["session"], config["cache"])
