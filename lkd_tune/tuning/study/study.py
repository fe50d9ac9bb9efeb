"""Optuna's side of a search: which trial comes next, and what is known of the others."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import Start
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement
from lkd_tune.records.pareto import excesses
from lkd_tune.records.run import Outcome, RunFolder, read_measurements
from lkd_tune.records.size import ModelSize
from lkd_tune.records.trial_folder import TrialFolder, outcome_of
from lkd_tune.tuning.ancestors import (
    best_of_each_map,
    drop_ancestors,
    hold_students,
    nearest_student,
)
from lkd_tune.tuning.samplers.build import build_sampler
from lkd_tune.tuning.study.ask_tell import live_trial, report, tell
from lkd_tune.tuning.study.fixed_trials import TakeIn, take_nothing_in
from lkd_tune.tuning.study.journal import Journal
from lkd_tune.tuning.study.limits import Admission

logger = logging.getLogger(__name__)

# Draws that can't be run are passed over: so many by the sampler, then by chance. Few students
# may be within the limits, and a draw costs little.
_SAMPLER_DRAWS = 10
_MOST_REPEATED, _MOST_REFUSED = 200, 2000


class StudySearcher(Searcher):
    """Draws trials from a study that is kept in the run folder, and tells it how they end.

    All state is in the study and in the trials' folders. A searcher made from them after a crash
    first gives out the trials that had not ended, by the same name and spec, and then draws what
    the lost one would have drawn. Where the two differ the trial's folder is right, because it is
    written first.

    A trial that the scheduler stopped is PRUNED with the last score it reached, so that the
    sampler never takes a score at a quarter of the steps for one at the end. With several
    objectives Optuna takes no scores on the way; they are a user attribute. A trial cut off
    because the whole search stops is told nothing: it stays RUNNING and is given out again.

    Where another task scores the trials (`evaluate_on`), what a trial reports at its steps is the
    metric of its own task, and what it is told complete with is the other score. The two are
    nowhere compared: schedulers see only the former, each step by itself, and of the samplers
    those that learn from PRUNED trials (tpe and evolution) put them behind all complete ones and
    order them by their steps and what they had reported there.

    A trial whose loss was not finite is PRUNED as well, behind all others: the constraint
    `diverged` is violated. What failed for another reason, the sampler does not hear of.

    How far a student is above a limit is a constraint of its trial. One that is known to be too
    large is refused before it becomes a trial.

    No spec is run twice: all trials have the same seed, so its scores would be the same. That
    holds for what was drawn; the ancestor of a student that inherits has no part in it.

    A trial of a population may have gone on as a copy of another, with other weights than those
    that were drawn for it: its folder has the spec that counts, and the study, which would learn
    the wrong lesson from its score, is told that it was PRUNED.

    Args:
        space: Where to draw from.
        run: Where the study lies.
        teacher: Folder or hub id.
        teacher_layers: Its number of encoder layers.
        common: What each trial's config holds besides its name and spec.
        starts: Points that a new study begins with.
        draws: Whether to draw new trials; else those that have not ended are all.
        take_in: See `TakeIn`.
        pause_at: Where trials pause, in halvings of their steps, to go on in a later call of Tune;
            0: they do not.
    """

    def __init__(
        self,
        space: SearchSpace,
        run: RunFolder,
        *,
        teacher: str,
        teacher_layers: int,
        common: dict[str, Any],
        take_in: TakeIn = take_nothing_in,
        starts: Sequence[Start] = (),
        draws: bool = True,
        pause_at: int = 0,
    ):
        super().__init__()
        self._space, self._run, self._draws = space, run, draws
        self._take_in = take_in
        self._common = {**common, "pause_at": pause_at}
        self._teacher, self._teacher_layers = teacher, teacher_layers
        self._search = space.settings.search
        self._objectives = space.settings.objectives
        self._limits = space.settings.limits.given
        self._inherits = space.may_inherit
        self._journal = open_journal(run.study)
        self._study = _study_in(self._journal, self._objectives)
        if not self._study.get_trials(deepcopy=False):
            with self._journal.batch():  # all of them or, if it is killed here, none
                for start in starts:
                    self._study.enqueue_trial(start.params, user_attrs={"origin": start.origin})
        self._names: dict[str, str] = {}  # digest of a spec -> name of its trial
        self._unfinished: list[FrozenTrial] = []
        with self._journal.batch():
            for trial in self._study.get_trials(deepcopy=False):
                if "name" in trial.user_attrs:
                    spec = TrialSpec.model_validate_json(trial.user_attrs["spec"])
                    self._names[spec.without_ancestor().digest()] = trial.user_attrs["name"]
                unfinished = trial.state == TrialState.RUNNING and not self._told_by_folder(trial)
                if unfinished and not self._folder(trial).waits_at(pause_at):
                    self._unfinished.append(trial)
        self._running: dict[str, optuna.Trial] = {}  # by Tune's trial id
        self._wall_s: dict[str, float] = {}
        earlier = {trial.number for trial in self._unfinished}
        self._admission = Admission(self._limits, run.latencies, earlier)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the config of the next trial, or FINISHED if there is none.

        Raises:
            SpecError: If nothing that can be run was drawn at all.
        """
        with self._journal.batch():
            trial = self._next_trial()
        if trial is None:
            return self.FINISHED
        self._running[trial_id] = trial
        folder = self._folder(trial)
        drawn = folder.read_spec() or TrialSpec.model_validate_json(trial.user_attrs["spec"])
        # One that goes on has as many workers as the run has by now, and its teacher lies where
        # it does by now.
        settings = self._space.settings
        now = {"resources": settings.resources, "inference": settings.teacher.inference}
        spec = drawn.model_copy(update=now)
        folder.write_spec(spec)
        if self._inherits:
            drop_ancestors(self._run, {*self._ancestors(), *best_of_each_map(self._run)})
        origin = trial.user_attrs.get("origin")
        if origin is not None:
            folder.write_origin(origin)
        return {
            **self._common,
            "name": trial.user_attrs["name"],
            "spec": spec.to_json(),
            "origin": origin,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Notes a measurement of a trial that goes on."""
        trial = self._running[trial_id]
        self._wall_s[trial_id] = result["wall_s"]
        self._admission.note_device(trial.number, result)
        self._report(trial, _measurements(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the study how a trial ended.

        Args:
            trial_id: Tune's id.
            result: Its last result; None if it was taken back before it had any.
            error: Whether it could not be started again after its workers were lost.
        """
        trial = self._running.pop(trial_id)
        if result is None and not error:
            return
        folder = self._folder(trial)
        if not self._take_in(folder.path.name, None if error else result):
            return
        resources = self._space.settings.resources
        if error:
            outcome = folder.read_outcome()
            if outcome is None:
                wall_s = self._wall_s.get(trial_id, 0.0)
                outcome = outcome_of("failed", resources, wall_s, "its worker was lost")
                folder.write_outcome(outcome)
            state, measurements = outcome.state, read_measurements(folder.path)
            score = self._run.read_trial(trial.user_attrs["name"]).score
        else:
            assert result is not None
            self._admission.note_device(trial.number, result)
            state, measurements = result["state"], _measurements(result)
            score = result.get("score")
            if state == "paused":
                self._report(trial, measurements)
                return
            if state == "running":  # so it was the scheduler that ended it
                state = "stopped"
                wall_s, worker_s = result["wall_s"], result["worker_s"]
                outcome = outcome_of("stopped", resources, wall_s, worker_s=worker_s)
                folder.write_outcome(outcome)
            else:
                outcome = folder.read_outcome() or Outcome(state=state)
        with self._journal.batch():
            self._report(trial, measurements)
            self._tell(trial, outcome, score, folder.read_size())
        folder.remove_checkpoints()
        if self._inherits and state == "complete":
            hold_students(self._run)  # before it is dropped, if it is not among the best

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def _next_trial(self) -> optuna.Trial | None:
        if self._unfinished:
            return live_trial(self._study, self._unfinished.pop(0))
        if not self._draws or len(self._names) >= self._search.trials:
            return None
        draw = refused = 0
        while draw - refused < _MOST_REPEATED and refused < _MOST_REFUSED:
            by_chance = draw >= _SAMPLER_DRAWS
            seed = _seed(self._search.seed, len(self._names), draw)
            self._study.sampler = build_sampler(self._search, seed, by_chance=by_chance)
            trial = self._study.ask()
            reason, too_large = self._draw(trial)
            if reason is None:
                return trial
            draw, refused = draw + 1, refused + too_large
        if not self._names:
            message = f"nothing that can be run was drawn in {draw} draws; the last: {reason}"
            raise SpecError(Problem("", "", message))
        logger.warning("the space is used up: no new trial in %d draws; the last: %s", draw, reason)
        return None

    def _draw(self, trial: optuna.Trial) -> tuple[str | None, bool]:
        """Draws a trial's spec and stores it.

        Returns:
            Why it is not to be run, None if it is; and whether that is a limit.
        """
        try:
            spec = self._space.draw(
                trial,
                teacher=self._teacher,
                teacher_layers=self._teacher_layers,
                seed=self._search.seed,
            )
            twin = self._names.get(spec.digest())
            reason = None if twin is None else f"is trial {twin} again"
            too_large = self._admission.excesses(spec) if reason is None else {}
        except SpecError as error:
            reason, too_large = str(error), {}
        if too_large:
            reason = ", ".join(
                f"{name} is {by:.0%} above the limit" for name, by in too_large.items()
            )
            for name, by in too_large.items():
                trial.set_constraint(name, by)
        if reason is not None:
            trial.set_user_attr("not_run", reason)
            # PRUNED, the sampler learns the constraints; of a repetition it learns nothing.
            state = TrialState.PRUNED if too_large else TrialState.FAIL
            self._study.tell(trial.number, state=state)
            return reason, bool(too_large)
        name, digest = f"{len(self._names):04d}", spec.digest()
        if spec.student.init == "nearest":
            # Decided here, once: whatever happens to the trial, it starts from the same weights.
            spec = spec.model_copy(update={"ancestor": nearest_student(self._run, spec)})
        trial.set_user_attr("spec", spec.to_json())
        trial.set_user_attr("name", name)  # last: a trial with a name has all it needs
        self._names[digest] = name
        return None, False

    def _told_by_folder(self, trial: FrozenTrial) -> bool:
        """Tells the study an end that its trial's folder has and the study lacks."""
        if "name" not in trial.user_attrs:  # cut off while it was drawn; it is drawn again
            self._study.tell(trial.number, state=TrialState.FAIL)
            return True
        folder = self._folder(trial)
        outcome = folder.read_outcome()
        if outcome is None:
            return False
        record = self._run.read_trial(trial.user_attrs["name"])
        live = live_trial(self._study, trial)
        self._report(live, record.measurements)
        self._tell(live, outcome, record.score, record.size)
        folder.remove_checkpoints()
        return True

    def _report(self, trial: optuna.Trial, measurements: Sequence[Measurement]) -> None:
        if not self._is_copy(trial):
            report(self._study, trial, {m.step: m.score for m in measurements})

    def _tell(
        self,
        trial: optuna.Trial,
        outcome: Outcome,
        score: float | None,
        size: ModelSize | None,
    ) -> None:
        values, told = None, TrialState.FAIL
        constraints = excesses(self._limits, size)
        if outcome.state == "complete" and not self._is_copy(trial):
            assert score is not None
            told = TrialState.COMPLETE
            values = [
                score if name == "score" else getattr(size, name) for name in self._objectives
            ]
        elif outcome.state != "failed":
            told = TrialState.PRUNED
        elif outcome.diverged:
            told, constraints = TrialState.PRUNED, {**constraints, "diverged": 1.0}
        tell(self._study, trial, told, values=values, constraints=constraints)

    def _is_copy(self, trial: optuna.Trial) -> bool:
        """Whether a trial has gone on as a copy of another, so that its draw is not what it is."""
        if self._search.scheduler != "pbt":
            return False  # no need to read a file with each result
        spec = self._folder(trial).read_spec()
        return spec is not None and bool(spec.weight_changes)

    def _ancestors(self) -> set[str]:
        """Returns the names of the trials that unfinished ones start from."""
        trials = [*self._running.values(), *self._unfinished]
        specs = [TrialSpec.model_validate_json(trial.user_attrs["spec"]) for trial in trials]
        return {spec.ancestor.trial for spec in specs if spec.ancestor is not None}

    def _folder(self, trial: optuna.Trial | FrozenTrial) -> TrialFolder:
        return TrialFolder(self._run.trial(trial.user_attrs["name"]))


def open_study(journal: Path, objectives: Sequence[str] = ("score",)) -> optuna.Study:
    """Returns the study in a journal, a new one if there is none. One process at a time."""
    return _study_in(open_journal(journal), objectives)


def open_journal(path: Path) -> Journal:
    """Returns a journal, after taking off half a line that a killed process may have left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    return Journal(path)


def _study_in(journal: Journal, objectives: Sequence[str]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="lkd_tune",
        directions=["maximize" if name == "score" else "minimize" for name in objectives],
        storage=JournalStorage(journal),
        load_if_exists=True,
    )


def names_in(journal: Path) -> set[str]:
    """Returns the names of the trials that were drawn, as a journal tells them."""
    if not journal.exists():
        return set()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(open_journal(journal))
    study = optuna.load_study(study_name="lkd_tune", storage=storage)
    trials = study.get_trials(deepcopy=False)
    return {trial.user_attrs["name"] for trial in trials if "name" in trial.user_attrs}


def _seed(*parts: int) -> int:
    """Returns a seed for one draw: a resumed search must not begin the random numbers anew."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _measurements(result: dict[str, Any]) -> list[Measurement]:
    text = result.get("measurement")
    return [Measurement.model_validate_json(text)] if text else []
