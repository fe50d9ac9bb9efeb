"""Reads a run's Optuna study from a copy of its journal, since a search may be writing to it."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lkd_tune.config.starts import RECIPE_ATTRIBUTE
from lkd_tune.records.run import RunFolder

# With fewer trials, the random forest of fANOVA is meaningless.
_MIN_TRIALS = 5


@dataclass(frozen=True)
class CompleteTrial:
    """A complete trial of a study.

    Attributes:
        name: The trial's name, such as `0007`.
        params: The drawn values by the name of the parameter.
        score: The final score.
    """

    name: str
    params: dict[str, Any]
    score: float


@dataclass(frozen=True)
class Parameter:
    """A searched parameter, with an axis from 0 to 1 for its values.

    Attributes:
        name: Its name in the study.
        values: The drawn values, sorted, each once.
        log: Whether its axis is logarithmic.
        is_number: Whether its values are numbers. Other values are placed at equal distances.
    """

    name: str
    values: tuple[Any, ...]
    log: bool
    is_number: bool

    @property
    def varies(self) -> bool:
        """Whether there are at least two values."""
        return len(self.values) > 1

    @property
    def label(self) -> str:
        """The name without `losses.` and `.weight`."""
        return label_of(self.name)

    @property
    def ends(self) -> list[tuple[float, str]]:
        """Positions and labels of the lower and the upper end of the axis."""
        low, high = self.values[0], self.values[-1]
        return [(0.0, _short(low)), (1.0, _short(high))]

    def position(self, value: Any) -> float:
        """Returns the position of a value on the axis, from 0 to 1."""
        if not self.is_number:
            return self.values.index(value) / (len(self.values) - 1)
        low, high = self.values[0], self.values[-1]
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class StudySummary:
    """The contents of a study that the leaderboard lacks.

    Attributes:
        trials: The complete trials, without those that have the losses of a recipe in place of the
            space's, and so no parameters for them. Empty if the score is not an objective.
        parameters: The parameters that at least half of the complete trials have. Layer maps are
            left out, because they have their own plots.
        importance: Each parameter's share of an objective's variance (fANOVA), by objective. An
            objective is left out if there are too few trials or nothing varies.
    """

    trials: list[CompleteTrial]
    parameters: list[Parameter]
    importance: dict[str, dict[str, float]]


def read_study(run: RunFolder, objectives: Sequence[str]) -> StudySummary:
    """Returns the summary of a run's study; an empty one if there is no readable study."""
    if not run.study.exists():
        return StudySummary([], [], {})
    with tempfile.TemporaryDirectory() as folder:
        study = _load(run.study, Path(folder))
    if study is None:
        return StudySummary([], [], {})
    complete = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE and "name" in trial.user_attrs and trial.values
    ]
    trials = []
    if "score" in objectives:
        index = list(objectives).index("score")
        trials = [CompleteTrial(t.user_attrs["name"], t.params, t.values[index]) for t in complete]
    return StudySummary(trials, _parameters(complete), _importance(study, complete, objectives))


def _load(journal: Path, folder: Path) -> optuna.Study | None:
    """Returns the trials that have all parameters, in memory; None if the study is unreadable."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    copy = folder / "study.journal"
    shutil.copyfile(journal, copy)
    content = copy.read_bytes()
    # The search may have written only a part of the last line.
    copy.write_bytes(content[: content.rfind(b"\n") + 1])
    try:
        storage = JournalStorage(JournalFileBackend(str(copy)))
        loaded = optuna.load_study(study_name=None, storage=storage)
        memory = optuna.create_study(directions=loaded.directions)
        trials = loaded.get_trials(deepcopy=False)
        memory.add_trials([t for t in trials if RECIPE_ATTRIBUTE not in t.user_attrs])
    except (KeyError, ValueError):
        return None
    return memory


def _parameters(trials: Sequence[FrozenTrial]) -> list[Parameter]:
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    parameters = []
    for name in names:
        having = [trial for trial in trials if name in trial.params]
        if name.startswith("layer_map.") or len(having) * 2 < len(trials):
            continue
        dist = having[0].distributions[name]
        is_number = not isinstance(dist, CategoricalDistribution)
        values = {trial.params[name] for trial in having}
        ordered = tuple(sorted(values)) if is_number else tuple(sorted(values, key=str))
        log = bool(getattr(dist, "log", False))
        parameters.append(Parameter(name, ordered, log, is_number))
    return parameters


def _importance(
    study: optuna.Study, trials: Sequence[FrozenTrial], objectives: Sequence[str]
) -> dict[str, dict[str, float]]:
    if len(trials) < _MIN_TRIALS:
        return {}
    importance = {}
    for index, objective in enumerate(objectives):
        if len({trial.values[index] for trial in trials}) < 2:
            continue

        def value(trial: FrozenTrial, index: int = index) -> float:
            return trial.values[index]

        try:
            shares = get_param_importances(
                study, evaluator=FanovaImportanceEvaluator(seed=0), target=value
            )
        except (ValueError, RuntimeError):  # no parameter is in all trials, or none varies
            continue
        merged = _merge_layer_map(shares)
        if all(map(math.isfinite, shares.values())) and len(merged) > 1:
            importance[objective] = merged
    return importance


def _merge_layer_map(shares: dict[str, float]) -> dict[str, float]:
    """Returns shares by label; those of the parameters of a layer map are added up."""
    merged: dict[str, float] = {}
    for name, share in shares.items():
        label = "layer map" if name.startswith("layer_map.") else label_of(name)
        merged[label] = merged.get(label, 0.0) + share
    return merged


def label_of(name: str) -> str:
    """Returns a parameter's name without `losses.` and `.weight`."""
    return name.removeprefix("losses.").removesuffix(".weight")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2g}"
    text = str(value)
    return text if len(text) <= 12 else f"{text[:11]}…"
