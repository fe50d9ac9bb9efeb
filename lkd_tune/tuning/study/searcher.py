"""The Optuna study of a search as a searcher of Ray Tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import RECIPE_ATTRIBUTE, Start
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.measurement import Measurement, ModelSize
from lkd_tune.records.pareto import violations
from lkd_tune.records.run import RunFolder
from lkd_tune.records.trial_folder import TrialFolder, read_measurements
from lkd_tune.records.trial_record import Outcome, outcome_of
from lkd_tune.tuning.study.ask_tell import live_trial, report, tell
from lkd_tune.tuning.study.drawing import TrialDrawer
from lkd_tune.tuning.study.fixed_trials import FetchTrialResults, fetch_nothing
from lkd_tune.tuning.study.journal import open_journal, study_in
from lkd_tune.tuning.study.limits import StudentLimits


class StudySearcher(Searcher):
    """Draws trials from the study in the run folder, and reports to it how they end.

    All state is in the study and in the trials' folders. A searcher that is rebuilt from them
    after a crash first continues the unfinished trials, with the same names and specs, and then
    draws what the lost searcher would have drawn. Where study and folder differ, the folder is
    right, because it is written first.

    Which state a trial gets in the study:

    - COMPLETE: it reached its last step.
    - PRUNED with its last score: the scheduler stopped it. So the sampler never mistakes a score
      at a quarter of the steps for a final one. With several objectives Optuna accepts no
      intermediate scores; they are a user attribute.
    - PRUNED, behind all others: its loss was not finite. The constraint `diverged` is violated.
    - FAIL: it failed for another reason; the sampler learns nothing from it.
    - RUNNING: the whole search stopped. A later session continues it.

    How far a student exceeds the limits becomes the constraints of its trial.

    If another task scores the trials (`evaluate_on`), intermediate scores are the metric of the
    trial's own task, and the final score is that of the other task. The two are never compared:
    schedulers see only the former, and compare them within one step. Samplers that learn from
    PRUNED trials (tpe and evolution) rank them behind all complete ones, by their steps and
    intermediate scores.

    Args:
        space: The space to draw from.
        run: The run that holds the study.
        teacher: Folder or hub id.
        teacher_layers: Number of the teacher's encoder layers.
        common: The part of a trial's config that is the same for all trials.
        starts: Points that a new study starts with.
        fetch_trial_results: See `FetchTrialResults`.
    """

    def __init__(
        self,
        space: SearchSpace,
        run: RunFolder,
        *,
        teacher: str,
        teacher_layers: int,
        common: dict[str, Any],
        fetch_trial_results: FetchTrialResults = fetch_nothing,
        starts: Sequence[Start] = (),
    ):
        super().__init__()
        self._space, self._run, self._common = space, run, common
        self._fetch_trial_results = fetch_trial_results
        self._objectives = space.settings.objectives
        self._limits = space.settings.limits.by_name
        self._journal = open_journal(run.study)
        self._study = study_in(self._journal, self._objectives)
        if not self._study.get_trials(deepcopy=False):
            with self._journal.batch():  # all of them or, if it is killed here, none
                for start in starts:
                    self._enqueue(start.params, start.origin, start.recipe)
        self._unfinished: list[FrozenTrial] = []
        with self._journal.batch():
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not self._end_from_folder(trial):
                    self._unfinished.append(trial)
        earlier = {trial.number for trial in self._unfinished}
        self._student_limits = StudentLimits(self._limits, run.latencies, earlier)
        self._drawer = TrialDrawer(
            space,
            self._study,
            self._student_limits,
            teacher=teacher,
            teacher_layers=teacher_layers,
            not_drawn=run.read_comparisons(),
        )
        self._running: dict[str, optuna.Trial] = {}  # by Tune's trial id
        self._wall_s: dict[str, float] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the config of the next trial, or FINISHED if there is none.

        Raises:
            SpecError: If no trial was ever drawn, as all draws were rejected.
        """
        with self._journal.batch():
            trial = self._next_trial()
        if trial is None:
            return self.FINISHED
        self._running[trial_id] = trial
        folder = self._folder(trial)
        drawn = folder.read_spec() or TrialSpec.from_record(trial.user_attrs["spec"])
        # A trial that continues uses the run's current workers and teacher placement.
        settings = self._space.settings
        current = {"resources": settings.resources, "inference": settings.teacher.inference}
        spec = drawn.model_copy(update=current)
        folder.write_spec(spec)
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
        """Records a measurement of a running trial."""
        trial = self._running[trial_id]
        self._wall_s[trial_id] = result["wall_s"]
        self._student_limits.add_device(trial.number, result)
        self._report_scores(trial, _measurements(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Reports to the study how a trial ended.

        Args:
            trial_id: Tune's id.
            result: Its last result; None if Tune took the trial back before it had one.
            error: Whether it could not be restarted after its workers were lost.
        """
        trial = self._running.pop(trial_id)
        if result is None and not error:
            return
        folder = self._folder(trial)
        if not self._fetch_trial_results(folder.path.name, None if error else result):
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
            self._student_limits.add_device(trial.number, result)
            state, measurements = result["state"], _measurements(result)
            score = result.get("score")
            if state == "paused":
                self._report_scores(trial, measurements)
                return
            if state == "running":  # so the scheduler stopped it
                state = "stopped"
                wall_s, worker_s = result["wall_s"], result["worker_s"]
                outcome = outcome_of("stopped", resources, wall_s, worker_s=worker_s)
                folder.write_outcome(outcome)
            else:
                outcome = folder.read_outcome() or Outcome(state=state)
        with self._journal.batch():
            self._report_scores(trial, measurements)
            self._report_end(trial, outcome, score, folder.read_size())
        folder.remove_checkpoints()

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def _enqueue(self, params: dict[str, Any], origin: str, recipe: str | None) -> None:
        attributes = {"origin": origin} | ({RECIPE_ATTRIBUTE: recipe} if recipe else {})
        self._study.enqueue_trial(params, user_attrs=attributes)

    def _next_trial(self) -> optuna.Trial | None:
        if self._unfinished:
            return live_trial(self._study, self._unfinished.pop(0))
        return self._drawer.draw()

    def _end_from_folder(self, trial: FrozenTrial) -> bool:
        """Ends a trial in the study if its folder has an outcome that the study lacks.

        Returns:
            Whether the trial has ended.
        """
        if "name" not in trial.user_attrs:  # interrupted while it was drawn; it is drawn again
            self._study.tell(trial.number, state=TrialState.FAIL)
            known = trial.user_attrs
            if "origin" in known:
                params = trial.system_attrs["fixed_params"]
                self._enqueue(params, known["origin"], known.get(RECIPE_ATTRIBUTE))
            return True
        folder = self._folder(trial)
        outcome = folder.read_outcome()
        if outcome is None:
            return False
        record = self._run.read_trial(trial.user_attrs["name"])
        live = live_trial(self._study, trial)
        self._report_scores(live, record.measurements)
        self._report_end(live, outcome, record.score, record.size)
        folder.remove_checkpoints()
        return True

    def _report_scores(self, trial: optuna.Trial, measurements: Sequence[Measurement]) -> None:
        report(self._study, trial, {m.step: m.score for m in measurements})

    def _report_end(
        self,
        trial: optuna.Trial,
        outcome: Outcome,
        score: float | None,
        size: ModelSize | None,
    ) -> None:
        values, state = None, TrialState.FAIL
        constraints = violations(self._limits, size)
        if outcome.state == "complete":
            assert score is not None
            state = TrialState.COMPLETE
            values = [
                score if name == "score" else getattr(size, name) for name in self._objectives
            ]
        elif outcome.state != "failed":
            state = TrialState.PRUNED
        elif outcome.diverged:
            state, constraints = TrialState.PRUNED, {**constraints, "diverged": 1.0}
        tell(self._study, trial, state, values=values, constraints=constraints)

    def _folder(self, trial: optuna.Trial | FrozenTrial) -> TrialFolder:
        return TrialFolder(self._run.trial(trial.user_attrs["name"]))


def _measurements(result: dict[str, Any]) -> list[Measurement]:
    text = result.get("measurement")
    return [Measurement.model_validate_json(text)] if text else []
