"""Optuna's ask and tell as a searcher of Ray Tune. It needs nothing else of this package."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher


class AskTellSearcher(Searcher):
    """Draws trials from an Optuna study and reports to it how they end.

    Unlike Ray's own `OptunaSearch`:

    - A trial that a scheduler stopped is PRUNED with the score and step it reached, not COMPLETE.
      With several objectives both are in the trial's user attribute `scores`.
    - Constraints are reported.
    - The space is any callable, including conditional and local ones.
    - All state is in the study. With a storage on disk (Optuna's journal, or SQL) a searcher that
      is rebuilt from it first gives the unfinished trials again, with the same config.

        study = optuna.create_study(storage=…, study_name="mine", load_if_exists=True)
        searcher = AskTellSearcher(
            study, draw, metrics=["loss"], step="epoch", total=90, trials=50
        )
        tune.run(train, search_alg=searcher, num_samples=-1)

    Args:
        study: The study. Its directions apply to `metrics`, in this order.
        draw: Returns a trial's config from the values of `trial.suggest_…`.
        metrics: Keys of a result, one for each of the study's directions.
        step: Key of a result: the step of a trial. It must not restart when a trial is restored,
            as `training_iteration` may.
        total: The step at which a trial is complete, or the key of a result that has it.
        trials: Number of trials, including earlier sessions; default: as many as Tune asks for.
        constraints: Returns constraints by name from a trial's last result; a value above 0
            violates one.

    Raises:
        ValueError: If the number of metrics is not that of the study's directions.
    """

    def __init__(
        self,
        study: optuna.Study,
        draw: Callable[[optuna.Trial], dict[str, Any]],
        *,
        metrics: Sequence[str],
        step: str,
        total: float | str,
        trials: int | None = None,
        constraints: Callable[[dict[str, Any]], Mapping[str, float]] | None = None,
    ):
        super().__init__()
        if len(metrics) != len(study.directions):
            raise ValueError(
                f"the study has {len(study.directions)} direction(s), metrics {len(metrics)}"
            )
        self._study, self._draw_config = study, draw
        self._metrics, self._step, self._total = metrics, step, total
        self._trials = trials
        self._constraints = constraints
        self._unfinished = _running_in(study)
        self._live: dict[str, optuna.Trial] = {}  # by Tune's trial id

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the config of the next trial, FINISHED if there are enough."""
        if self._unfinished:
            trial = live_trial(self._study, self._unfinished.pop(0))
        elif self._trials is not None and self._drawn() >= self._trials:
            return self.FINISHED
        else:
            trial = self._study.ask()
            trial.set_user_attr("config", self._draw_config(trial))
        self._live[trial_id] = trial
        return dict(trial.user_attrs["config"])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports a result of a running trial to the study."""
        self._report(self._live[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Reports to the study how a trial ended; one without a result stays unfinished."""
        trial = self._live.pop(trial_id)
        if error:
            tell(self._study, trial, TrialState.FAIL)
        elif result is not None:
            self._report(trial, result)
            total = result[self._total] if isinstance(self._total, str) else self._total
            complete = result[self._step] >= total
            values = [result[metric] for metric in self._metrics] if complete else None
            state = TrialState.COMPLETE if complete else TrialState.PRUNED
            if values and any(map(math.isnan, values)):  # a study accepts no NaN
                state, values = TrialState.FAIL, None
            tell(
                self._study,
                trial,
                state,
                values=values,
                constraints=self._constraints(result) if self._constraints else {},
            )

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the state."""

    def _drawn(self) -> int:
        return sum("config" in t.user_attrs for t in self._study.get_trials(deepcopy=False))

    def _report(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        report(self._study, trial, {result[self._step]: result[self._metrics[0]]})


def report(study: optuna.Study, trial: optuna.Trial, scores: Mapping[int, float]) -> None:
    """Reports a trial's scores by step, without those reported before.

    With several objectives Optuna accepts no intermediate scores; they become the trial's user
    attribute `scores`.
    """
    stored = study._storage.get_trial(trial._trial_id)
    if len(study.directions) > 1:
        known = stored.user_attrs.get("scores", {})
        new = {str(step): score for step, score in scores.items() if str(step) not in known}
        if new:
            trial.set_user_attr("scores", known | new)
        return
    for step, score in scores.items():
        if step not in stored.intermediate_values:
            trial.report(score, step)


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    state: TrialState,
    *,
    values: Sequence[float] | None = None,
    constraints: Mapping[str, float] | None = None,
) -> None:
    """Reports to a study how a trial ended.

    Args:
        study: The trial's study.
        trial: A trial whose end is not reported yet.
        state: How it ended. The value of a PRUNED trial is its last reported score.
        values: The values of a complete trial, one for each objective.
        constraints: The trial's constraints by name; a value above 0 violates one.
    """
    for name, excess in (constraints or {}).items():
        trial.set_constraint(name, excess)
    study.tell(trial.number, values, state=state)


def live_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Returns a trial of an earlier session as one that can be reported on."""
    return optuna.Trial(study, trial._trial_id)


def _running_in(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials with a config that have not ended; ends those without one as FAIL."""
    unfinished = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if "config" in trial.user_attrs:
            unfinished.append(trial)
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    return unfinished
