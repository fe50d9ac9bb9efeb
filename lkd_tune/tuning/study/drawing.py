"""Drawing new trials from a study."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

import optuna
from optuna.trial import TrialState

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.starts import RECIPE_ATTRIBUTE
from lkd_tune.config.trial import TrialSpec
from lkd_tune.tuning.samplers.build import build_sampler
from lkd_tune.tuning.study.limits import StudentLimits

logger = logging.getLogger(__name__)

# The sampler makes the first draws for a trial; if all are rejected, the others are random. Few
# students may be within the limits, and a draw costs little.
_MAX_SAMPLER_DRAWS = 10
_MAX_REJECTED, _MAX_ABOVE_LIMITS = 200, 2000


class TrialDrawer:
    """Draws specs that can be run, are within the limits and are new.

    No spec runs twice: all trials have the same seed, so the score would be the same.

    A student that is known to be too large is rejected before it becomes a trial. The sampler
    learns from its constraints, and learns nothing from other rejected draws.

    A trial with the user attribute `RECIPE_ATTRIBUTE` has the losses of that recipe.

    Args:
        space: The space to draw from.
        study: The study; trials with a name in it are those drawn so far.
        limits: The limits on students.
        teacher: Folder or hub id.
        teacher_layers: Number of the teacher's encoder layers.
        not_drawn: Specs, by name, of numbered trials that are not in the study.
    """

    def __init__(
        self,
        space: SearchSpace,
        study: optuna.Study,
        limits: StudentLimits,
        *,
        teacher: str,
        teacher_layers: int,
        not_drawn: Mapping[str, TrialSpec],
    ):
        self._space, self._study, self._limits = space, study, limits
        self._search = space.settings.search
        self._teacher, self._teacher_layers = teacher, teacher_layers
        self._names: dict[str, str] = {}  # digest of a spec -> name of its trial
        for trial in study.get_trials(deepcopy=False):
            if "name" in trial.user_attrs:
                spec = TrialSpec.from_record(trial.user_attrs["spec"])
                self._names[spec.digest()] = trial.user_attrs["name"]
        self._not_drawn = {spec.digest(): name for name, spec in not_drawn.items()}
        taken = (*self._names.values(), *not_drawn)
        self._next_number = 1 + max(map(int, taken), default=-1)

    def draw(self) -> optuna.Trial | None:
        """Returns a new trial with its name and spec, None if there are enough or no more.

        Raises:
            SpecError: If no trial was ever drawn, as all draws were rejected.
        """
        if len(self._names) >= self._search.trials:
            return None
        draws = above_limits = 0
        reason: str | None = None
        while draws - above_limits < _MAX_REJECTED and above_limits < _MAX_ABOVE_LIMITS:
            seed = _seed(self._search.seed, len(self._names), draws)
            at_random = draws >= _MAX_SAMPLER_DRAWS
            self._study.sampler = build_sampler(self._search, seed, at_random=at_random)
            trial = self._study.ask()
            reason, is_above_limits = self._fill(trial)
            if reason is None:
                return trial
            draws, above_limits = draws + 1, above_limits + is_above_limits
        if not self._names:
            message = (
                f"no trial can be run: all {draws} draws were rejected (the last: {reason}); "
                "change the space or its limits"
            )
            raise SpecError(Problem("", "", message))
        logger.warning(
            "no more trials: all of the last %d draws were rejected (the last: %s)", draws, reason
        )
        return None

    def _fill(self, trial: optuna.Trial) -> tuple[str | None, bool]:
        """Draws a trial's spec and stores it.

        Returns:
            Why the spec is rejected, None if it is not; and whether a limit is the reason.
        """
        try:
            spec = self._space.draw(
                trial,
                teacher=self._teacher,
                teacher_layers=self._teacher_layers,
                seed=self._search.seed,
                recipe=trial.user_attrs.get(RECIPE_ATTRIBUTE),
            )
            digest = spec.digest()
            twin = self._names.get(digest) or self._not_drawn.get(digest)
            reason = None if twin is None else f"same as trial {twin}"
            violations = self._limits.violations_of(spec) if reason is None else {}
        except SpecError as error:
            reason, violations = str(error), {}
        if violations:
            reason = ", ".join(
                f"{name} is {by:.0%} above the limit" for name, by in violations.items()
            )
            for name, by in violations.items():
                trial.set_constraint(name, by)
        if reason is not None:
            trial.set_user_attr("not_run", reason)
            # The sampler learns the constraints of a PRUNED trial, and nothing of a FAILED one.
            state = TrialState.PRUNED if violations else TrialState.FAIL
            self._study.tell(trial.number, state=state)
            return reason, bool(violations)
        name = f"{self._next_number:04d}"
        self._next_number += 1
        trial.set_user_attr("spec", spec.to_json())
        trial.set_user_attr("name", name)  # last: a trial with a name is complete
        self._names[digest] = name
        return None, False


def _seed(*parts: int) -> int:
    """Returns the seed of one draw, so that a resumed search does not repeat random numbers."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
