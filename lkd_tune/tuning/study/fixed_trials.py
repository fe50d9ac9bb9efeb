"""Trials that no sampler draws: the baseline, and the winners with other seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder, outcome_of

TakeIn = Callable[[str, dict[str, Any] | None], bool]
"""Called with a trial's name and last result, None if its workers were lost, before its folder is
read, as it may have run where this folder is not seen. If not all is here then, False, the trial
counts as not ended, and is for a later session."""


def take_nothing_in(trial: str, result: dict[str, Any] | None) -> bool:
    """Does nothing: every trial's folder is seen here."""
    return True


class GivenTrials(Searcher):
    """Gives out some trials, which go the way of all others from there on.

    Args:
        run: Where their folders are.
        specs: What to run, by name.
        common: What each trial's config holds besides its name and spec.
        take_in: See `TakeIn`.
    """

    def __init__(
        self,
        run: RunFolder,
        specs: Mapping[str, TrialSpec],
        common: dict[str, Any],
        take_in: TakeIn = take_nothing_in,
    ):
        super().__init__()
        self._run, self._common, self._take_in = run, common, take_in
        self._left = dict(specs)
        self._given: dict[str, tuple[str, TrialSpec]] = {}  # by Tune's trial id

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the next trial's config, FINISHED after the last."""
        if not self._left:
            return self.FINISHED
        name = next(iter(self._left))
        spec = self._left.pop(name)
        self._given[trial_id] = name, spec
        TrialFolder(self._run.trial(name)).write_spec(spec)
        return {**self._common, "name": name, "spec": spec.to_json()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Notes the loss of a trial's workers; any other end it has noted itself."""
        name, spec = self._given[trial_id]
        folder = TrialFolder(self._run.trial(name))
        if (result is not None or error) and not self._take_in(name, None if error else result):
            return
        if error and folder.read_outcome() is None:
            lost = "its worker was lost"
            folder.write_outcome(outcome_of("failed", spec.resources, 0.0, lost))
            folder.remove_checkpoints()

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: there is no state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: there is no state."""
