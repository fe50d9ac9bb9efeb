"""The points with which a search starts: known good settings as parameters of its space."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lkd_tune.config.distributions import Choice, Numbers
from lkd_tune.config.errors import SpecError
from lkd_tune.config.loss_scales import with_other_scales
from lkd_tune.config.settings.layer_map import (
    PRESETS,
    RANDOM,
    SEARCHED,
    params_of_map,
    preset_map,
)
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.recipes import DEFAULT_RECIPE
from lkd_tune.config.settings.search import LimitSettings
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.settings.student import SHAPE_KEYS, StudentSettings, model_name
from lkd_tune.config.space import SearchSpace, picking
from lkd_tune.config.trial import TrialSpec

RECIPE_ATTRIBUTE = "recipe"
"""The user attribute of a trial in the study that has `Start.recipe`. Such a trial has parameters
for everything but the losses."""
# The uniform map, the lower half with the last layer, and DistilBERT's choice. Each is far better
# than the others on some tasks; see benchmarks/RESULTS.md.
_MAPS = ("skip", "lower_half", "top_bottom")
# The key that a scalar sets if it replaces a block of losses.
_MAIN_KEY = "weight"
# Wanted in place of a value: the middle of the numbers that the space has.
_MIDDLE = object()


@dataclass(frozen=True)
class Start:
    """A point of a space with which a search starts.

    Attributes:
        origin: Its origin, for messages.
        params: Values by parameter name; the sampler draws the other parameters.
        clamped: The original values, by name, of settings that were clamped to the space.
        recipe: The recipe whose losses replace those of the space, which does not have them; None
            if the losses are among `params`.
    """

    origin: str
    params: dict[str, Any]
    clamped: dict[str, Any]
    recipe: str | None = None


def recipe_starts(space: SearchSpace, teacher_layers: int, names: Sequence[str]) -> list[Start]:
    """Returns the recipes as starts, in this order, each with another map than the one before it.

    After the last recipe the first follows with its next map. Which map suits a task matters as
    much as the recipe, so a few trials try several of both. The models in `student.init` take turns
    in the same way. There are at most `SearchSettings.most_recipe_starts`. An exhaustive search has
    those only that are points of its space.

    If the score is the only objective and there are no limits, students are as deep and wide as
    the space allows, because a larger student is mostly better. Otherwise they have half of the
    teacher's layers. Learning rates and other numbers of `train` are the middle of their range:
    those of a recipe were meant for another teacher.

    Args:
        space: The search space.
        teacher_layers: Number of the teacher's encoder layers.
        names: Names of the recipes.
    """
    starts: list[Start] = []
    inits, had = _inits(space), Counter[str | tuple[str, str]]()
    turns = range(max(len(_MAPS), len(inits)))
    for turn, (place, name) in itertools.product(turns, enumerate(names)):
        preset = _MAPS[(place + turn) % len(_MAPS)]
        fitting = [init for init in inits if _takes_recipe(space, init, name, teacher_layers)]
        if not fitting:
            continue
        # The one that had this recipe least often, of these the one that had any.
        init = min(fitting, key=lambda each: (had[each, name], had[each]))
        had.update([init, (init, name)])
        try:
            start = _recipe_start(space, teacher_layers, name, preset, init)
        except SpecError:  # the middle of one setting may not fit that of another
            continue
        # Different presets can give the same map; and the space may have a fixed map.
        is_new = all((start.params, start.recipe) != (s.params, s.recipe) for s in starts)
        if is_new and not (space.settings.search.is_exhaustive and start.recipe is not None):
            starts.append(start)
    return starts[: space.settings.search.most_recipe_starts]


def _inits(space: SearchSpace) -> list[str]:
    """Returns what students may start from: `teacher`, if any is carved, and other models."""
    carved = ["teacher"] if space.depths() else []
    return [*carved, *space.init_models]


def _takes_recipe(space: SearchSpace, init: str, recipe: str, teacher_layers: int) -> bool:
    """Whether a student that starts from `init` can be trained with a recipe."""
    if init not in space.init_models:
        return True
    settings = space.resolve(picking({"student.init": init}), recipe)
    return settings.student.init == init and not space.init_problem(settings, teacher_layers)


def _recipe_start(
    space: SearchSpace, teacher_layers: int, name: str, preset: str, init: str
) -> Start:
    losses = _in_units_of(space, LossSettings.model_validate(space.losses_of(name)), {})
    if init in space.init_models:
        student: dict[str, Any] = {"init": init, "depth": space.init_models[init].depth}
    else:
        student = {"init": init, "layers": "matched", **_student_size(space, teacher_layers)}
    wanted = {"losses": losses.model_dump(mode="json"), "student": student, "train": _MIDDLE}
    layer_map = None
    if init not in space.init_models or losses.needs_layers:
        layer_map = preset_map(preset, teacher_layers, student["depth"])
    point = _nearest_point(space, wanted, layer_map, layer_map, teacher_layers)
    has_map = preset != "skip" and any(key.startswith("layer_map") for key in point.params)
    origin = f"recipe {name}" + (f" (map {preset})" if has_map else "")
    origin += f" from {model_name(init)}" if init in space.init_models else ""
    if _objective(point.settings.losses) == _objective(losses):
        return Start(origin, point.params, point.clamped)
    others = {key: v for key, v in point.params.items() if key.partition(".")[0] != "losses"}
    return Start(origin, others, {}, recipe=name)


def _student_size(space: SearchSpace, teacher_layers: int) -> dict[str, Any]:
    """Returns the depth of the starts, and their width if it alone is searched."""
    settings, found = space.settings, space.distributions()
    only_score_counts = settings.objectives == ("score",) and settings.limits == LimitSettings()
    depths = space.depths()
    half = min(depths, key=lambda d: (abs(d - teacher_layers / 2), d))
    size: dict[str, Any] = {"depth": max(depths) if only_score_counts else half}
    widths = found.get("student.hidden_size")
    # Not every number of heads or neurons fits every width, so they are left to the sampler.
    if widths is not None and not found.keys() & {"student.heads", "student.intermediate_size"}:
        largest = max(widths.probes, key=lambda width: math.inf if width is None else width)
        size["hidden_size"] = largest if only_score_counts else _MIDDLE
    return size


def _objective(losses: LossSettings) -> dict[str, Any]:
    """Returns what of the losses has an effect on a training."""
    settings = {"relations_until": losses.relations_until if losses.relations_end else 1.0}
    return {**dict(losses.active()), **settings, "balanced": losses.is_balanced}


def start_from(origin: str, spec: TrialSpec, space: SearchSpace, teacher_layers: int) -> Start:
    """Returns a start from a trial of another search.

    If only one of the two balances its terms, weights are converted to the units of this space.
    """
    losses = _in_units_of(space, spec.losses, spec.effective_scales)
    spec = spec.model_copy(update={"losses": losses})
    wanted = spec.model_dump(mode="json")
    word, layer = spec.layer_map.word, spec.layer_map.layer
    if spec.student.init in space.init_models and not losses.needs_layers:
        point = _nearest_point(space, wanted, None, None, teacher_layers)
    else:
        point = _nearest_point(space, wanted, word, layer, teacher_layers)
    return Start(origin, point.params, point.clamped)


def _in_units_of(
    space: SearchSpace, losses: LossSettings, scales: Mapping[str, float]
) -> LossSettings:
    """Returns losses with weights that mean in a space what they mean with these scales."""
    balance = space.settings.losses.balance
    is_searched = not space.distributions().keys().isdisjoint({"losses", "losses.balance"})
    if balance == losses.balance or is_searched:
        return losses
    other = losses.model_copy(update={"balance": balance})
    after = space.scales_of(other)
    if other.is_balanced and not after:
        return losses  # its settings were not measured
    return with_other_scales(other, scales, after)


def _nearest_point(
    space: SearchSpace, wanted: Mapping[str, Any], word: Any, layer: Any, layers: int
) -> _NearestPoint:
    point = _NearestPoint(
        space, word=word, layer=layer, teacher_layers=layers, depth=wanted["student"]["depth"]
    )
    is_own = wanted["student"].get("init") in space.init_models
    for key in ("student", "losses", "train", *(() if word is None else ("layer_map",))):
        node = space.tree.get(key)
        if key == "student" and is_own and isinstance(node, Mapping):
            node = {name: each for name, each in node.items() if name not in SHAPE_KEYS}
        if node is not None:
            point.node(node, wanted.get(key), key)
    settings = point.settings
    if word is None:
        return point
    pins = {
        "pin_embeddings": settings.layer_map.pin_embeddings,
        "pin_last": settings.layer_map.pin_last,
    }
    for name, kind, entries in (
        ("layer_map.word", settings.layer_map.word, word),
        ("layer_map.layer", settings.layer_map.layer, layer),
    ):
        if kind not in SEARCHED or entries == "random":
            continue
        params = params_of_map(kind, name, entries, layers, settings.student.depth, **pins)
        if params is None:
            point.clamped[name] = list(entries)
        else:
            point.params.update(params)
    return point


@dataclass
class _NearestPoint:
    """Collects the values of a space that are nearest to the wanted settings."""

    space: SearchSpace
    word: Any
    layer: Any
    teacher_layers: int
    depth: int
    params: dict[str, Any] = field(default_factory=dict)
    picked: dict[str, Any] = field(default_factory=dict)
    clamped: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> SpaceSettings:
        """The settings at this point, with any value of what is left to the sampler."""
        return self.space.resolve(lambda name, dist: self.picked.get(name, dist.probes[0]))

    def node(self, node: Any, wanted: Any, name: str) -> None:
        """Adds the parameters below one node of the space's tree."""
        if name.startswith("layer_map") and isinstance(node, Choice):
            self._choose_map(node, name)
        elif name == "student.layers" and isinstance(node, Choice):
            self._choose_layers(node, wanted, name)
        elif isinstance(node, Choice):
            self._choose(node, wanted, name)
        elif isinstance(node, Numbers):
            self._number(node, _scalar(wanted), name)
        elif isinstance(node, Mapping):
            for key, value in node.items():
                self.node(value, _part(wanted, key), f"{name}.{key}")

    def _number(self, numbers: Numbers, wanted: Any, name: str) -> None:
        if wanted is _MIDDLE:
            wanted = numbers.middle
        if not _is_number(wanted):
            return
        value = numbers.nearest(wanted)
        self.params[name] = self.picked[name] = value
        if abs(value - wanted) > 1e-9 * max(1.0, abs(wanted)):
            self.clamped[name] = wanted

    def _choose(self, choice: Choice, wanted: Any, name: str) -> None:
        if wanted is _MIDDLE:
            wanted = _middle(choice.options)
            if wanted is None:
                return
        as_block = _recipe_block if name == "losses" else lambda option: option
        holding = [option for option in choice.options if _holds(as_block(option), wanted)]
        if holding:
            option = holding[0]
        else:
            if wanted is not None:
                self.clamped[name] = _scalar(wanted)
            option = _nearest(choice.options, _scalar(wanted))
            if option is None:
                return
        self._take(choice, option, name)
        self.node(option, wanted, name)

    def _choose_map(self, choice: Choice, name: str) -> None:
        wanted = self.layer if name == "layer_map.layer" else self.word
        same = [option for option in choice.options if self._is_map(option, wanted)]
        searched = [option for option in choice.options if option in SEARCHED]
        if same or searched:
            self._take(choice, (same or searched)[0], name)
        else:
            self.clamped[name] = wanted

    def _choose_layers(self, choice: Choice, wanted: Any, name: str) -> None:
        """Takes the wanted option, or one that selects the same layers for the wanted map."""
        equal = [option for option in choice.options if option == wanted]
        same = [option for option in choice.options if self._layers(option) == self._layers(wanted)]
        if equal or same:
            self._take(choice, (equal or same)[0], name)
        else:
            self.clamped[name] = wanted

    def _layers(self, option: Any) -> tuple[int, ...] | str:
        if option == "matched" and self.word == RANDOM:
            return RANDOM
        student = StudentSettings(depth=self.depth, layers=option)
        return student.start_layers(self.teacher_layers, self.word)

    def _is_map(self, option: Any, wanted: Any) -> bool:
        if isinstance(option, list):
            return tuple(option) == wanted
        if option in PRESETS:
            return preset_map(option, self.teacher_layers, self.depth) == wanted
        return option == wanted or (option == "same" and wanted == self.word)

    def _take(self, choice: Choice, option: Any, name: str) -> None:
        self.params[name], self.picked[name] = choice.category(option), option


def _holds(option: Any, wanted: Any) -> bool:
    """Whether an option of a choice equals the wanted value or can draw it."""
    if isinstance(option, Choice):
        return any(_holds(each, wanted) for each in option.options)
    if isinstance(option, Numbers):
        value = _scalar(wanted)
        return isinstance(value, int | float) and option.low <= value <= option.high
    if isinstance(option, Mapping):
        inner = wanted if isinstance(wanted, Mapping) else {_MAIN_KEY: wanted}
        # An option with weight 0 turns the loss off, so it matches only a wanted weight of 0.
        if inner.get(_MAIN_KEY) == 0:
            return option.get(_MAIN_KEY) == 0
        return all(_holds(value, inner[key]) for key, value in option.items() if key in inner)
    return option == _scalar(wanted)


def _part(wanted: Any, key: str) -> Any:
    """Returns what is wanted of one key of a block."""
    if wanted is _MIDDLE:
        return _MIDDLE
    return wanted.get(key) if isinstance(wanted, Mapping) else wanted if key == _MAIN_KEY else None


def _recipe_block(option: Any) -> Any:
    """Returns an option of `losses` as a block that names its recipe."""
    return (
        {"recipe": DEFAULT_RECIPE, **option} if isinstance(option, Mapping) else {"recipe": option}
    )


def _middle(options: tuple[Any, ...]) -> Any:
    """Returns the middle one of numbers, the lower of two; None if any option is not a number."""
    if not all(_is_number(option) for option in options):
        return None
    return sorted(options)[(len(options) - 1) // 2]


def _nearest(options: tuple[Any, ...], wanted: Any) -> Any:
    """Returns the option nearest to a number; None if any of them is not a number."""
    if not all(_is_number(each) for each in (wanted, *options)):
        return None
    if wanted > 0 and min(options) > 0:  # weights and learning rates are compared by their ratio
        return min(options, key=lambda option: abs(math.log(option / wanted)))
    return min(options, key=lambda option: abs(option - wanted))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalar(wanted: Any) -> Any:
    """Returns the value that stands for a block in messages: its weight or its recipe."""
    if isinstance(wanted, Mapping):
        return wanted.get("recipe", wanted.get(_MAIN_KEY))
    return wanted
