"""One trial that no sampler draws: the baseline."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from lkd_tune.search.trial_folder import TrialFolder, outcome_of
from lkd_tune.spec.run import RunFolder
from lkd_tune.spec.trial import TrialSpec


class OneTrial(Searcher):
    """Gives out one trial, which goes the way of all others from there on."""

    def __init__(self, run: RunFolder, name: str, spec: TrialSpec, common: dict[str, Any]):
        super().__init__()
        self._folder, self._resources = TrialFolder(run.trial(name)), spec.resources
        self._configs = [{**common, "name": name, "spec": spec.to_json()}]

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the trial's config, then FINISHED."""
        return self._configs.pop() if self._configs else self.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Notes the loss of its workers; any other end it has noted itself."""
        if error and self._folder.read_outcome() is None:
            lost = "its worker or node was lost"
            self._folder.write_outcome(outcome_of("failed", self._resources, 0.0, lost))
            self._folder.remove_checkpoints()

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: there is no state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: there is no state."""
