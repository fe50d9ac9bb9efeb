"""Trials that no sampler draws: a winner's student on the labels alone, other seeds, ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import outcome_of

FetchTrialResults = Callable[[str, dict[str, Any] | None], bool]
"""Called with a trial's name and last result (None if its workers were lost) before its folder is
read, because it may have run on a node that does not share this folder. Returns whether the folder
is complete. If not, the trial counts as unfinished, and a later session continues it."""


def fetch_nothing(trial: str, result: dict[str, Any] | None) -> bool:
    """Returns True: every trial's folder is visible here."""
    return True


class FixedTrials(Searcher):
    """Gives Tune a fixed set of trials.

    Args:
        run: The run that holds their folders.
        specs: The specs by trial name.
        common: The part of a trial's config that is the same for all trials.
        fetch_trial_results: See `FetchTrialResults`.
    """

    def __init__(
        self,
        run: RunFolder,
        specs: Mapping[str, TrialSpec],
        common: dict[str, Any],
        fetch_trial_results: FetchTrialResults = fetch_nothing,
    ):
        super().__init__()
        self._run, self._common = run, common
        self._fetch_trial_results = fetch_trial_results
        self._waiting = dict(specs)
        self._started: dict[str, tuple[str, TrialSpec]] = {}  # by Tune's trial id

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the next trial's config, FINISHED after the last."""
        if not self._waiting:
            return self.FINISHED
        name = next(iter(self._waiting))
        spec = self._waiting.pop(name)
        self._started[trial_id] = name, spec
        folder = TrialFolder(self._run.trial(name))
        folder.write_spec(spec)
        origin = folder.read_origin()
        return {**self._common, "name": name, "spec": spec.to_json(), "origin": origin}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Writes the outcome of a trial that lost its workers; other trials write their own."""
        name, spec = self._started[trial_id]
        folder = TrialFolder(self._run.trial(name))
        if result is None and not error:
            return
        if not self._fetch_trial_results(name, None if error else result):
            return
        if error and folder.read_outcome() is None:
            lost = "its worker was lost"
            folder.write_outcome(outcome_of("failed", spec.resources, 0.0, lost))
            folder.remove_checkpoints()

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: there is no state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: there is no state."""
