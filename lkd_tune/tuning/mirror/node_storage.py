"""A trial of a run with a home, on a node that may not see the driver's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.files.cache import node_cache
from lkd_tune.files.tombstones import forget_notes, is_below, keep_notes, read_notes
from lkd_tune.records.run import RunFolder
from lkd_tune.storage.object_store import StorageError, Store, cache_path, retry_until_available
from lkd_tune.tuning.mirror.sync import Sync, stamps


class NodeCopy:
    """Where a trial finds and leaves its files.

    Where the driver's folder is seen, which is told by its manifest, that is the place, and the
    driver sends what the trial writes. Elsewhere it is a folder of the node's own: the trial
    fetches what it goes on from, and sends what it has written before the driver is told. While the
    store can't be reached it waits.

    Args:
        run: The run, as the driver has it; it has a home.
        trial: The trial's name.
        session: The driver's.
        cache: The driver's cache.

    Attributes:
        run: The run's folder for this trial.
        apart: Whether that is the node's own.
    """

    def __init__(self, run: RunFolder, trial: str, session: str, cache: str):
        assert run.remote_uri is not None
        try:
            self.apart = run.read_manifest().get("session") != session
        except SpecError:
            self.apart = True
        own = RunFolder(node_cache(cache) / "runs" / cache_path(run.remote_uri), run.remote_uri)
        self.run = own if self.apart else run
        self._trial = trial
        self._sync = Sync(Store(run.remote_uri), self.run.path)

    def read_manifest(self) -> dict[str, Any]:
        """Returns the run's manifest as it is now.

        Raises:
            SpecError: If the folder that this node shares with the driver has none any more.
            StorageError: If the store can't be reached or has none, for an hour.
        """
        return (
            retry_until_available(self._fetch_manifest) if self.apart else self.run.read_manifest()
        )

    def pull(self) -> None:
        """Fetches what the trial goes on from, as far as it is not here."""
        retry_until_available(self._pull)

    def push(self) -> None:
        """Sends what the trial has written, if the driver does not see it."""
        if self.apart:
            retry_until_available(self._push)

    def _fetch_manifest(self) -> dict[str, Any]:
        store = self._sync.store
        content = store.read("manifest.json")
        if content is None:
            # That is no other driver's doing: what answers is not the store, or not yet.
            raise StorageError(Problem(store.address, "", "the run's manifest.json is not there"))
        return json.loads(content)

    def _pull(self) -> None:
        if not self.apart:
            if self._sync.is_ahead(self._trial):
                self._sync.pull_trial(self._trial, checkpoint=True)
            return
        keep_notes(self.run.path)
        forget_notes(self.run.path, self._removed())  # of a session that was killed
        self._sync.pull_trial(self._trial, checkpoint=True)
        self._sync.pull_missing("latencies")

    def _push(self) -> None:
        own, removed = f"trials/{self._trial}", self._removed()
        here = stamps(self.run.path, own) | stamps(self.run.path, "latencies")
        gone = [name for name in self._sync.known if name not in here and is_below(name, removed)]
        if self._sync.push(here, gone):
            forget_notes(self.run.path, removed)
        if f"{own}/outcome.json" in here:  # all of it is the driver's now
            shutil.rmtree(self.run.path / own)
            self._sync.known = {}

    def _removed(self) -> set[str]:
        own = f"trials/{self._trial}/"
        return {folder for folder in read_notes(self.run.path) if folder.startswith(own)}


def node_copy(config: dict[str, Any]) -> NodeCopy | None:
    """Returns a trial's `NodeCopy` from its config, None for a run without a home."""
    if config.get("remote_uri") is None:
        return None
    run = RunFolder(Path(config["run"]), config["remote_uri"])
    return NodeCopy(run, config["name"], config["session"], config["cache"])
