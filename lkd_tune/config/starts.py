"""The points with which a search starts: known good settings as parameters of its space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lkd_tune.config.distributions import Choice, Numbers
from lkd_tune.config.loss_scales import with_other_scales
from lkd_tune.config.settings.layer_map import (
    PRESETS,
    RANDOM,
    SEARCHED,
    params_of_map,
    preset_map,
)
from lkd_tune.config.settings.losses import LossSettings
from lkd_tune.config.settings.search import LimitSettings
from lkd_tune.config.settings.student import StudentSettings
from lkd_tune.config.space import SearchSpace
from lkd_tune.config.trial import TrialSpec

PUBLISHED = "published"
# The lower half with the last layer, and DistilBERT's choice. Each is far better than the uniform
# map on some tasks, the first also on real ones; see benchmarks/RESULTS.md.
_OTHER_MAPS = ("lower_half", "top_bottom")
# The key that a scalar sets if it replaces a block of losses.
_MAIN_KEY = "weight"
_LEARNING_RATE = "train.lr"

# The published recipes of CKD (Park et al., EMNLP 2021, appendix), by task: temperature, weight of
# both pair-wise terms, weight of both triple-wise terms, learning rate, epochs.
_RECIPES = {
    "cola": (3, 1, 10, 5e-5, 4),
    "sst2": (4, 100, 1000, 4e-5, 4),
    "rte": (3, 1, 10, 5e-5, 6),
    "qnli": (3, 10, 1, 4e-5, 4),
    "mrpc": (4, 1, 1, 3e-5, 4),
    "stsb": (1, 0.1, 0.1, 5e-5, 4),
    "mnli": (4, 100, 1, 4e-5, 4),
    "qqp": (2, 10, 10, 5e-5, 4),
}


@dataclass(frozen=True)
class Start:
    """A point of a space with which a search starts.

    Attributes:
        origin: Its origin, for messages.
        params: Values by parameter name; the sampler draws the other parameters.
        clamped: The original values, by name, of settings that were clamped to the space.
    """

    origin: str
    params: dict[str, Any]
    clamped: dict[str, Any]


def published_recipe(task: str) -> dict[str, Any]:
    """Returns the published losses and training of a task; those of CoLA for other tasks."""
    temperature, pair, triple, lr, epochs = _RECIPES.get(task, _RECIPES["cola"])
    return {
        "losses": {
            "wr_pair": {"weight": pair, "distance": "cosine", "discrepancy": "kl"},
            "wr_triple": {"weight": triple, "discrepancy": "l2", "window": 21},
            "ltr_pair": {"weight": pair, "distance": "cosine", "discrepancy": "kl"},
            "ltr_triple": {"weight": triple, "discrepancy": "l2"},
            "logits": {
                "weight": 1.0,
                "temperature": float(temperature),
                "alpha": 0.0,
                "divergence": "kl",
                "scaled": False,
            },
            "hidden": {"weight": 0.0},
            "attention": {"weight": 0.0},
            "relations_until": 1.0,
        },
        "train": {"lr": lr, "epochs": float(epochs), "batch_size": 32},
    }


def published_starts(space: SearchSpace, teacher_layers: int) -> list[Start]:
    """Returns the published recipe, and starts with its weights and other maps or more layers.

    If the score is the only objective and there are no limits, these other starts have as many
    layers as the space allows, because a deeper student is mostly better. Otherwise they have as
    many as the recipe.

    Args:
        space: The search space.
        teacher_layers: Number of the teacher's encoder layers.
    """
    settings = space.settings
    half = min(space.depths(), key=lambda d: (abs(d - teacher_layers / 2), d))
    only_score_counts = settings.objectives == ("score",) and settings.limits == LimitSettings()
    depth = max(space.depths()) if only_score_counts else half
    starts = [_published_start(space, teacher_layers, half, "skip", PUBLISHED)]
    deeper = f", {depth} layers" if depth != half else ""
    uniform = _published_start(space, teacher_layers, depth, "skip", PUBLISHED + deeper)
    others = [
        _published_start(space, teacher_layers, depth, preset, f"{PUBLISHED}, map {preset}{deeper}")
        for preset in _OTHER_MAPS
    ]
    if all(other.params == uniform.params for other in others):  # the space has a fixed map
        others = [uniform]
    for other in others:
        # Different presets can give the same map if the student has few layers.
        if all(other.params != start.params for start in starts):
            starts.append(other)
    return starts


def _published_start(
    space: SearchSpace, teacher_layers: int, depth: int, preset: str, origin: str
) -> Start:
    """Returns a start with the published weights, a map and a depth.

    A published learning rate outside the space's range was chosen for students of another size, so
    it is replaced by the middle of the range. Other values are clamped to the nearest end.
    """
    wanted = {
        **published_recipe(space.settings.task.name),
        "student": {"depth": depth, "init": "teacher", "layers": "matched"},
    }
    layer_map = preset_map(preset, teacher_layers, depth)
    start = _start(origin, space, wanted, layer_map, layer_map, teacher_layers)
    rate = space.distributions().get(_LEARNING_RATE)
    if _LEARNING_RATE in start.clamped and isinstance(rate, Numbers):
        start.params[_LEARNING_RATE] = rate.middle
    return start


def start_from(origin: str, spec: TrialSpec, space: SearchSpace, teacher_layers: int) -> Start:
    """Returns a start from a trial of another search.

    If only one of the two balances its terms, weights are converted to the units of this space.
    """
    spec = spec.model_copy(update={"losses": _in_units_of(space, spec)})
    wanted = spec.model_dump(mode="json")
    word, layer = spec.layer_map.word, spec.layer_map.layer
    return _start(origin, space, wanted, word, layer, teacher_layers)


def _in_units_of(space: SearchSpace, spec: TrialSpec) -> LossSettings:
    """Returns the losses of a trial with weights that mean in a space what they mean to it."""
    losses, balance = spec.losses, space.settings.losses.balance
    is_searched = not space.distributions().keys().isdisjoint({"losses", "losses.balance"})
    if balance == losses.balance or is_searched:
        return losses
    other = losses.model_copy(update={"balance": balance})
    after = space.scales_of(other)
    if other.is_balanced and not after:
        return losses  # its settings were not measured
    return with_other_scales(other, spec.effective_scales, after)


def _start(
    origin: str, space: SearchSpace, wanted: Mapping[str, Any], word: Any, layer: Any, layers: int
) -> Start:
    nearest = _NearestPoint(
        word=word, layer=layer, teacher_layers=layers, depth=wanted["student"]["depth"]
    )
    for key in ("student", "losses", "train", "layer_map"):
        if key in space.tree:
            nearest.node(space.tree[key], wanted.get(key), key)
    settings = space.resolve(lambda name, dist: nearest.picked.get(name, dist.probes[0]))
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
            nearest.clamped[name] = list(entries)
        else:
            nearest.params.update(params)
    return Start(origin, nearest.params, nearest.clamped)


@dataclass
class _NearestPoint:
    """Collects the values of a space that are nearest to the wanted settings."""

    word: Any
    layer: Any
    teacher_layers: int
    depth: int
    params: dict[str, Any] = field(default_factory=dict)
    picked: dict[str, Any] = field(default_factory=dict)
    clamped: dict[str, Any] = field(default_factory=dict)

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
            inner = wanted if isinstance(wanted, Mapping) else {_MAIN_KEY: wanted}
            for key, value in node.items():
                self.node(value, inner.get(key), f"{name}.{key}")

    def _number(self, numbers: Numbers, wanted: Any, name: str) -> None:
        if not _is_number(wanted):
            return
        value = numbers.nearest(wanted)
        self.params[name] = self.picked[name] = value
        if abs(value - wanted) > 1e-9 * max(1.0, abs(wanted)):
            self.clamped[name] = wanted

    def _choose(self, choice: Choice, wanted: Any, name: str) -> None:
        option = next((o for o in choice.options if _holds(o, wanted)), None)
        if option is None:
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
    return wanted.get(_MAIN_KEY) if isinstance(wanted, Mapping) else wanted
