"""Optuna's study of a run, read without touching it: a search may be writing to it."""

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

from lkd_tune.records.run import RunFolder

# A forest grown on fewer trials says nothing.
_LEAST_TRIALS = 5


@dataclass(frozen=True)
class Drawn:
    """A complete trial as its study knows it.

    Attributes:
        name: `0007`.
        params: What was drawn, by the name of the parameter.
        score: At its end.
    """

    name: str
    params: dict[str, Any]
    score: float


@dataclass(frozen=True)
class Parameter:
    """A searched parameter, and where its values lie on an axis from 0 to 1.

    Attributes:
        name: As the study has it.
        values: What was drawn, in order.
        log: Whether its axis is logarithmic.
        is_number: Whether values have a distance, and not only an order.
    """

    name: str
    values: tuple[Any, ...]
    log: bool
    is_number: bool

    @property
    def varies(self) -> bool:
        """Whether there are two values at least."""
        return len(self.values) > 1

    @property
    def label(self) -> str:
        """The name without the part that goes without saying."""
        return label_of(self.name)

    @property
    def ends(self) -> list[tuple[float, str]]:
        """What stands at the lower and the upper end of the axis."""
        low, high = self.values[0], self.values[-1]
        return [(0.0, _short(low)), (1.0, _short(high))]

    def place(self, value: Any) -> float:
        """Returns where a value lies."""
        if not self.is_number:
            return self.values.index(value) / (len(self.values) - 1)
        low, high = self.values[0], self.values[-1]
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@dataclass(frozen=True)
class StudyFacts:
    """What a study tells beyond the leaderboard.

    Attributes:
        trials: The complete ones.
        parameters: What most of them drew, layer maps left out: they have pictures of their own.
        importance: Each parameter's share of the variance of an objective, by objective; empty
            where there are too few trials or nothing varies.
    """

    trials: list[Drawn]
    parameters: list[Parameter]
    importance: dict[str, dict[str, float]]


def read_study(run: RunFolder, objectives: Sequence[str]) -> StudyFacts:
    """Returns what the run's study tells; nothing where it has none or none can be read."""
    if not run.study.exists():
        return StudyFacts([], [], {})
    with tempfile.TemporaryDirectory() as folder:
        study = _load(run.study, Path(folder))
    if study is None:
        return StudyFacts([], [], {})
    complete = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE and "name" in trial.user_attrs and trial.values
    ]
    at = list(objectives).index("score") if "score" in objectives else None
    drawn = (
        [Drawn(t.user_attrs["name"], t.params, t.values[at]) for t in complete]
        if at is not None
        else []
    )
    return StudyFacts(drawn, _parameters(complete), _importance(study, complete, objectives))


def _load(journal: Path, folder: Path) -> optuna.Study | None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    copy = folder / "study.journal"
    shutil.copyfile(journal, copy)
    whole = copy.read_bytes()
    copy.write_bytes(whole[: whole.rfind(b"\n") + 1])  # the last line may be half written
    try:
        storage = JournalStorage(JournalFileBackend(str(copy)))
        loaded = optuna.load_study(study_name=None, storage=storage)
        memory = optuna.create_study(directions=loaded.directions)
        memory.add_trials(loaded.get_trials(deepcopy=False))
    except (KeyError, ValueError):
        return None
    return memory


def _parameters(trials: Sequence[FrozenTrial]) -> list[Parameter]:
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    found = []
    for name in names:
        own = [trial for trial in trials if name in trial.params]
        if name.startswith("layer_map.") or len(own) * 2 < len(trials):
            continue
        dist = own[0].distributions[name]
        number = not isinstance(dist, CategoricalDistribution)
        values = {trial.params[name] for trial in own}
        ordered = tuple(sorted(values)) if number else tuple(sorted(values, key=str))
        found.append(Parameter(name, ordered, bool(getattr(dist, "log", False)), number))
    return found


def _importance(
    study: optuna.Study, trials: Sequence[FrozenTrial], objectives: Sequence[str]
) -> dict[str, dict[str, float]]:
    if len(trials) < _LEAST_TRIALS:
        return {}
    found = {}
    for place, objective in enumerate(objectives):
        if len({trial.values[place] for trial in trials}) < 2:
            continue

        def value(trial: FrozenTrial, place: int = place) -> float:
            return trial.values[place]

        try:
            shares = get_param_importances(
                study, evaluator=FanovaImportanceEvaluator(seed=0), target=value
            )
        except (ValueError, RuntimeError):  # nothing was drawn in every trial, or nothing varies
            continue
        if all(map(math.isfinite, shares.values())) and len(together := _together(shares)) > 1:
            found[objective] = together
    return found


def _together(shares: dict[str, float]) -> dict[str, float]:
    """Returns shares with those of the numbers that a layer map is drawn from added up."""
    found: dict[str, float] = {}
    for name, share in shares.items():
        label = "layer map" if name.startswith("layer_map.") else label_of(name)
        found[label] = found.get(label, 0.0) + share
    return found


def label_of(name: str) -> str:
    """Returns a parameter's name without the parts that go without saying."""
    return name.removeprefix("losses.").removesuffix(".weight")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2g}"
    text = str(value)
    return text if len(text) <= 12 else f"{text[:11]}…"
