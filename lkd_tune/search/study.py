"""Optuna's side of a search: which trial comes next, and what is known of the others."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from lkd_tune.search.trial_folder import TrialFolder, outcome_of
from lkd_tune.spec.errors import Problem, SpecError
from lkd_tune.spec.measurement import Measurement
from lkd_tune.spec.run import RunFolder, read_measurements
from lkd_tune.spec.settings import SearchSettings
from lkd_tune.spec.space import SearchSpace
from lkd_tune.spec.trial import TrialSpec

logger = logging.getLogger(__name__)

# Draws that repeat an earlier trial are passed over: so many by the sampler, then by chance.
_SAMPLER_DRAWS = 10
_MOST_DRAWS = 200


class StudySearcher(Searcher):
    """Draws trials from a study that is kept in the run folder, and tells it how they end.

    All state is in the study and in the trials' folders. A searcher made from them after a crash
    first gives out the trials that had not ended, by the same name and spec, and then draws what
    the lost one would have drawn. Where the two differ the trial's folder is right, because it is
    written first.

    A trial that the scheduler stopped is PRUNED with the last score it reached, so that the
    sampler never takes a score at a quarter of the steps for one at the end. A trial cut off
    because the whole search stops is told nothing: it stays RUNNING and is given out again.

    No spec is run twice: all trials have the same seed, so its scores would be the same.

    Args:
        space: Where to draw from.
        run: Where the study lies.
        teacher: Folder or hub id.
        teacher_layers: Its number of encoder layers.
        common: What each trial's config holds besides its name and spec.
    """

    def __init__(
        self,
        space: SearchSpace,
        run: RunFolder,
        *,
        teacher: str,
        teacher_layers: int,
        common: dict[str, Any],
    ):
        super().__init__()
        self._space, self._run, self._common = space, run, common
        self._teacher, self._teacher_layers = teacher, teacher_layers
        self._search = space.settings.search
        self._study = open_study(run.study)
        self._names: dict[str, str] = {}  # digest of a spec -> name of its trial
        self._unfinished: list[FrozenTrial] = []
        for trial in self._study.get_trials(deepcopy=False):
            if "name" in trial.user_attrs:
                spec = TrialSpec.model_validate_json(trial.user_attrs["spec"])
                self._names[spec.digest()] = trial.user_attrs["name"]
            if trial.state == TrialState.RUNNING and not self._told_by_folder(trial):
                self._unfinished.append(trial)
        self._running: dict[str, optuna.Trial] = {}  # by Tune's trial id
        self._wall_s: dict[str, float] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the config of the next trial, or FINISHED if there is none.

        Raises:
            SpecError: If nothing that can be run was drawn at all.
        """
        trial = self._next_trial()
        if trial is None:
            return self.FINISHED
        self._running[trial_id] = trial
        name, spec = trial.user_attrs["name"], trial.user_attrs["spec"]
        self._folder(trial).write_spec(TrialSpec.model_validate_json(spec))
        return {**self._common, "name": name, "spec": spec}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Notes a measurement of a trial that goes on."""
        self._wall_s[trial_id] = result["wall_s"]
        self._report(self._running[trial_id], _measurements(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the study how a trial ended.

        Args:
            trial_id: Tune's id.
            result: Its last result; None if it was taken back before it had any.
            error: Whether its workers were lost more often than they are replaced.
        """
        trial = self._running.pop(trial_id)
        if result is None and not error:
            return
        folder = self._folder(trial)
        resources = self._space.settings.resources
        if error:
            outcome = folder.read_outcome()
            if outcome is None:
                lost = f"its worker or node was lost {self._search.max_failures + 1} time(s)"
                wall_s = self._wall_s.get(trial_id, 0.0)
                outcome = outcome_of("failed", resources, wall_s, lost)
                folder.write_outcome(outcome)
            state, measurements = outcome.state, read_measurements(folder.path)
        else:
            assert result is not None
            state, measurements = result["state"], _measurements(result)
            if state == "running":  # so it was the scheduler that ended it
                state = "stopped"
                folder.write_outcome(outcome_of("stopped", resources, result["wall_s"]))
        self._report(trial, measurements)
        self._tell(trial.number, state, measurements)
        folder.remove_checkpoints()

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def _next_trial(self) -> optuna.Trial | None:
        if self._unfinished:
            return optuna.Trial(self._study, self._unfinished.pop(0)._trial_id)
        if len(self._names) >= self._search.trials:
            return None
        for draw in range(_MOST_DRAWS):
            by_chance = draw >= _SAMPLER_DRAWS
            seed = _seed(self._search.seed, len(self._names), draw)
            self._study.sampler = build_sampler(self._search, seed, by_chance=by_chance)
            trial = self._study.ask()
            reason = self._draw(trial)
            if reason is None:
                return trial
        if not self._names:
            message = (
                f"nothing that can be run was drawn in {_MOST_DRAWS} draws; the last: {reason}"
            )
            raise SpecError(Problem("", "", message))
        logger.warning("no new trial in %d draws: the space is used up", _MOST_DRAWS)
        return None

    def _draw(self, trial: optuna.Trial) -> str | None:
        """Draws a trial's spec and stores it; returns why it is not to be run, None if it is."""
        try:
            spec = self._space.draw(
                trial,
                teacher=self._teacher,
                teacher_layers=self._teacher_layers,
                seed=self._search.seed,
            )
            twin = self._names.get(spec.digest())
            reason = None if twin is None else f"is trial {twin} again"
        except SpecError as error:
            reason = str(error)
        if reason is not None:
            trial.set_user_attr("not_run", reason)
            self._study.tell(trial.number, state=TrialState.FAIL)
            return reason
        name = f"{len(self._names):04d}"
        trial.set_user_attr("spec", spec.to_json())
        trial.set_user_attr("name", name)  # last: a trial with a name has all it needs
        self._names[spec.digest()] = name
        return None

    def _told_by_folder(self, trial: FrozenTrial) -> bool:
        """Tells the study an end that its trial's folder has and the study lacks."""
        if "name" not in trial.user_attrs:  # cut off while it was drawn; it is drawn again
            self._tell(trial.number, "failed", [])
            return True
        folder = self._folder(trial)
        outcome = folder.read_outcome()
        if outcome is None:
            return False
        measurements = read_measurements(folder.path)
        self._report(optuna.Trial(self._study, trial._trial_id), measurements)
        self._tell(trial.number, outcome.state, measurements)
        folder.remove_checkpoints()
        return True

    def _report(self, trial: optuna.Trial, measurements: list[Measurement]) -> None:
        known = self._study._storage.get_trial(trial._trial_id).intermediate_values
        for measurement in measurements:
            if measurement.step not in known:
                trial.report(measurement.score, measurement.step)

    def _tell(self, number: int, state: str, measurements: list[Measurement]) -> None:
        if state == "complete":
            self._study.tell(number, measurements[-1].score)
        elif state == "stopped":
            self._study.tell(number, state=TrialState.PRUNED)  # with the last score reported
        else:
            self._study.tell(number, state=TrialState.FAIL)

    def _folder(self, trial: optuna.Trial | FrozenTrial) -> TrialFolder:
        return TrialFolder(self._run.trial(trial.user_attrs["name"]))


def open_study(journal: Path) -> optuna.Study:
    """Returns the study in a journal, a new one if there is none. One process at a time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal.parent.mkdir(parents=True, exist_ok=True)
    # A killed process may have left half a line, which the next one would be glued to, and its
    # lock, for which Optuna would wait half a minute.
    if journal.exists():
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            with journal.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink(missing_ok=True)
    return optuna.create_study(
        study_name="lkd_tune",
        direction="maximize",
        storage=JournalStorage(JournalFileBackend(str(journal))),
        load_if_exists=True,
    )


def build_sampler(search: SearchSettings, seed: int, *, by_chance: bool = False) -> BaseSampler:
    """Returns the sampler for one draw."""
    if search.sampler == "random" or by_chance:
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            multivariate=True,
            group=True,  # parameters that exist for some options only are modelled among those
            constant_liar=True,  # trials that run now are taken as bad, so that others differ
            n_startup_trials=min(10, max(4, search.trials // 4)),
        )


def _seed(*parts: int) -> int:
    """Returns a seed for one draw: a resumed search must not begin the random numbers anew."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _measurements(result: dict[str, Any]) -> list[Measurement]:
    text = result.get("measurement")
    return [Measurement.model_validate_json(text)] if text else []
