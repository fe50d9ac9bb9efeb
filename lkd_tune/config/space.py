"""The search space: a tree of settings in which any leaf may be a distribution."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from lkd_tune.config.distributions import Choice, Distribution, Numbers, Suggester
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.loss_scales import LossScales, term_variants
from lkd_tune.config.settings.layer_map import (
    PRESETS,
    SEARCHED,
    LayerMapSettings,
    count_maps,
    draw_free,
    draw_listed,
    draw_monotone,
    map_problem,
    preset_map,
)
from lkd_tune.config.settings.losses import LossSettings, TermSettings
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.settings.student import SHAPE_KEYS, InitModel, StudentSettings
from lkd_tune.config.settings.width import Width, width_problems, with_width
from lkd_tune.config.source import KeyPath, Source, dotted, long_form
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec, depth_problem, tokenizer_problem
from lkd_tune.config.validation import validation_problems

# The blocks in which trials may differ; all others are the same for all trials of a run.
SEARCHABLE = ("student", "layer_map", "losses", "train")
_MAX_COMBINATIONS = 2000
_MAX_GRID_POINTS = 100_000

Pick = Callable[[str, Distribution], Any]


@dataclass
class SearchSpace:
    """A checked space file.

    Attributes:
        source: The settings as written, for messages and for the copy in the run folder.
        tree: The same with distributions parsed.
        settings: The settings that do not vary (task, teacher, search, resources, keep), and an
            example of those that do.
        teacher_width: The width against which student widths are checked; set by `check_width`.
        loss_scales: What `losses.balance: gradient` multiplies weights by; set once it is
            measured. Trials that are drawn without it measure their own.
        init_models: The models that `student.init` names; set by `check_init_models`.
    """

    source: Source
    tree: dict[str, Any]
    settings: SpaceSettings
    teacher_width: Width | None = None
    loss_scales: LossScales | None = None
    init_models: Mapping[str, InitModel] = field(default_factory=dict)

    def draw(
        self,
        suggester: Suggester,
        *,
        teacher: str | None,
        teacher_layers: int,
        seed: int,
        recipe: str | None = None,
    ) -> TrialSpec:
        """Returns the settings of one trial.

        Args:
            suggester: An `optuna.Trial`, or anything that draws by name.
            teacher: Folder or hub id of the trained teacher.
            teacher_layers: Its number of encoder layers.
            seed: The trial's seed.
            recipe: Name of a recipe whose losses replace those of the space; none are drawn.

        Raises:
            SpecError: If the drawn settings are invalid; this does not happen if
                `check_teacher` has passed.
        """
        settings = self.resolve(self._drawing(suggester), recipe)
        if problem := self.init_problem(settings, teacher_layers):
            raise SpecError(Problem("", "student.init", problem))
        if self.has_map(settings):
            layer_map = resolve_layer_map(
                settings.layer_map,
                suggester,
                teacher_layers,
                settings.student.depth,
                listed=settings.search.is_exhaustive,
            )
        else:
            unused = tuple(range(settings.student.depth + 1))
            layer_map = ResolvedLayerMap(word=unused, layer=unused)
        return TrialSpec(
            task=settings.task,
            teacher=teacher,
            inference=settings.teacher.inference,
            student=with_width(settings.student, self.teacher_width),
            layer_map=layer_map,
            losses=settings.losses,
            loss_scales=self.scales_of(settings.losses),
            train=settings.train,
            targets=settings.targets,
            resources=settings.resources,
            evaluate_on=settings.evaluate_on,
            seed=seed,
        )

    def compares_layers(self, student: StudentSettings, teacher_layers: int) -> bool:
        """Returns whether terms that compare words or layers can train a student."""
        model = self.init_models.get(student.init)
        return model is None or not (model.own_tokenizer or model.depth > teacher_layers)

    def _drawing(self, suggester: Suggester) -> Pick:
        """Returns a function that draws all values but those that do not apply to a trial."""
        fixed: dict[str, Any] = {}
        block = self.tree.get("student")
        init = block.get("init") if isinstance(block, Mapping) else None
        if isinstance(init, Choice) and not self.init_models.keys().isdisjoint(init.options):
            init = fixed["student.init"] = init.draw("student.init", suggester)
        found = self.distributions()
        if init in self.init_models:
            shape = (f"student.{key}" for key in SHAPE_KEYS)
            fixed |= {name: found[name].probes[0] for name in shape if name in found}
        return lambda name, dist: fixed[name] if name in fixed else dist.draw(name, suggester)

    def has_map(self, settings: SpaceSettings) -> bool:
        """Returns whether the layer map of a trial has an effect."""
        return settings.student.init not in self.init_models or settings.losses.needs_layers

    def init_problem(self, settings: SpaceSettings, teacher_layers: int) -> str | None:
        """Returns why the model in `student.init` can't be trained with some settings, or None."""
        name = settings.student.init
        model = self.init_models.get(name)
        if model is None:
            return None
        problem = None
        if model.own_tokenizer:
            problem = tokenizer_problem(name, settings.task, settings.losses)
        if problem is None and settings.losses.needs_layers:
            problem = depth_problem(name, model.depth, settings.layer_map, teacher_layers)
        return problem

    def scales_of(self, losses: LossSettings) -> dict[str, float]:
        """Returns the scales of a trial's terms; {} if it has none, or they were not measured."""
        if self.loss_scales is None or not losses.is_balanced:
            return {}
        return self.loss_scales.scales_of(losses)

    def balanced_terms(self) -> dict[str, list[TermSettings]]:
        """Returns the terms to measure for `losses.balance: gradient`, at weight 1, by name.

        Empty if no trial is balanced.
        """
        distributions = self.distributions()
        varies = not distributions.keys().isdisjoint({"losses", "losses.balance"})
        if self.settings.losses.balance == "none" and not varies:
            return {}
        return term_variants(distributions, lambda picked: self.resolve(picking(picked)).losses)

    def possible_terms(self, *terms: str) -> dict[str, list[TermSettings]]:
        """Returns the settings, at weight 1, of those terms that a trial can have, by name."""
        return term_variants(
            self.distributions(),
            lambda picked: self.resolve(picking(picked)).losses,
            terms=terms,
            balanced=False,
        )

    def resolve(self, pick: Pick, recipe: str | None = None) -> SpaceSettings:
        """Returns the settings with `pick(name, distribution)` in place of each distribution.

        Args:
            pick: Returns a value.
            recipe: Name of a recipe whose losses replace those of the space.

        Raises:
            SpecError: If they are invalid.
        """
        tree = {**self.tree, "losses": self.losses_of(recipe)} if recipe else self.tree
        tree = _resolved(tree, (), pick)
        try:
            settings = SpaceSettings.model_validate(tree)
        except ValidationError as error:
            raise SpecError(validation_problems(error, self.source)) from None
        student = settings.student.with_shape_of(self.init_models)
        return settings.model_copy(update={"student": student})

    def losses_of(self, recipe: str) -> dict[str, Any]:
        """Returns a recipe's block of losses, without the labels if the task has none."""
        if self.settings.task.train is not None:
            return {"recipe": recipe}
        return {"recipe": recipe, "logits": {"alpha": 0.0}}

    def is_written(self, path: KeyPath) -> bool:
        """Returns whether the file or an override sets a leaf or block."""
        block: Any = self.source.tree
        for key in path:
            if not isinstance(block, Mapping) or key not in block:
                return False
            block = block[key]
        return True

    def set_default(self, path: KeyPath, value: Any) -> None:
        """Sets a leaf that no trial varies and that the file leaves to its default.

        Raises:
            SpecError: If the settings are invalid with it.
        """
        self.tree = _with_leaf(self.tree, path, value)
        self.settings = self.resolve(picking({}))

    def check_teacher(self, teacher_layers: int) -> None:
        """Checks every depth, layer map and list of layers against the teacher's depth.

        Raises:
            SpecError: With all values that do not fit.
        """
        too_deep: set[int] = set()
        misfits: dict[tuple[KeyPath, str], dict[int, str]] = {}
        for settings in self._carved():
            depth, layer_map = settings.student.depth, settings.layer_map
            if depth > teacher_layers:
                too_deep.add(depth)
                continue
            for key, entries in (("word", layer_map.word), ("layer", layer_map.layer)):
                if not isinstance(entries, list):
                    continue
                if found := map_problem(entries, teacher_layers, depth):
                    misfits.setdefault((("layer_map", key), str(entries)), {})[depth] = found
            if found := settings.student.layers_problem(teacher_layers):
                value = str(settings.student.layers)
                misfits.setdefault((("student", "layers"), value), {})[depth] = found
        # One problem for each setting, however many depths it fails at.
        problems = []
        if too_deep:
            message = (
                f"depth {max(too_deep)} is above the teacher's {teacher_layers} layers; "
                f"use 1–{teacher_layers}"
            )
            problems.append(self.source.problem(("student", "depth"), message))
        for (place, _), by_depth in misfits.items():
            first, *others = sorted(by_depth)
            also = (
                f" (it does not fit depth {', '.join(map(str, others))} either)" if others else ""
            )
            problems.append(self.source.problem(place, by_depth[first] + also))
        if not problems and self.settings.search.is_exhaustive:
            problems += self._check_grid(teacher_layers)
        if problems:
            raise SpecError(problems)

    def check_init_models(self, models: Mapping[str, InitModel], teacher_layers: int) -> None:
        """Checks the models that `student.init` names, and stores them for later draws.

        A combination in which a model can't be trained is not a problem: it is drawn again.

        Raises:
            SpecError: With the models that no combination fits, and the settings of the student's
                shape if they apply to none.
        """
        problems = []
        written = self.settings.student
        self.init_models = models
        for name in models:
            found = {
                self.init_problem(settings, teacher_layers)
                for settings in self._with_losses()
                if settings.student.init == name
            }
            if found and None not in found:
                message = next(filter(None, sorted(map(str, found))))
                problems.append(self.source.problem(("student", "init"), message))
        if models and not any(True for _ in self._carved()):
            own = written.with_shape_of(models)
            for key in SHAPE_KEYS:
                path = ("student", key)
                is_fixed = self.is_written(path) and dotted(path) not in self.distributions()
                if is_fixed and getattr(written, key) != getattr(own, key):
                    message = (
                        f"does not apply to {written.init}, which has {own.depth} layers and a "
                        "width of its own; leave it out"
                    )
                    problems.append(self.source.problem(path, message))
        if problems:
            raise SpecError(problems)

    def _check_grid(self, teacher_layers: int) -> list[Problem]:
        """Returns why a grid search of this space is impossible, or nothing."""
        path = ("search", "sampler")
        for name, dist in self.distributions().items():
            if math.isinf(dist.size):
                message = f"grid needs a finite space, but {name} is continuous; "
                advice = "give it a step or a choice, or use tpe"
                return [self.source.problem(path, message + advice)]
        points = self.size(teacher_layers)
        if points > _MAX_GRID_POINTS:
            message = f"the space has {points:,.0f} points; grid takes at most {_MAX_GRID_POINTS:,}"
            return [self.source.problem(path, message)]
        return []

    def missing_trackers(self) -> list[Problem]:
        """Returns a problem for each tracker whose package is not installed."""
        missing = self.settings.trackers.missing
        return [self.source.problem(("trackers", name), said) for name, said in missing.items()]

    def check_width(self, teacher: Width) -> None:
        """Checks every student width against the teacher's, which is stored for later draws.

        Raises:
            SpecError: With the widths that are invalid in every combination.
        """
        self.teacher_width = teacher
        problems = width_problems((shape.student for shape in self.shapes()), teacher)
        if problems:
            raise SpecError(
                self.source.problem(problem.key.split("."), problem.message) for problem in problems
            )

    def distributions(self) -> dict[str, Distribution]:
        """Returns all distributions by the name of their parameter, without searched layer maps."""
        return {dotted(path): dist for path, dist in distributions_in(self.tree)}

    def layer_map_counts(self, teacher_layers: int) -> dict[int, int]:
        """Returns the number of different layer maps for each depth of a carved student."""
        return _count_maps(self._carved(), teacher_layers)

    def size(self, teacher_layers: int) -> float:
        """Returns the number of different trials; infinity if any parameter is continuous."""
        others = {
            name: dist.size
            for name, dist in self.distributions().items()
            if name != "student.depth" and not name.startswith("layer_map")
        }
        inits = others.pop("student.init", 1) - len(self.init_models)
        counts = self.layer_map_counts(teacher_layers).values()
        carved = inits * math.prod(others.values()) * sum(counts) if inits > 0 else 0
        started = math.prod(
            size for name, size in others.items() if name.removeprefix("student.") not in SHAPE_KEYS
        )
        return carved + sum(
            started * self._count_maps_of(name, teacher_layers) for name in self.init_models
        )

    def _count_maps_of(self, model: str, teacher_layers: int) -> int:
        """Returns the number of layer maps of a model in `student.init`; 1 if they do not count."""
        mapped = (
            each
            for each in self._with_losses()
            if each.student.init == model
            and self.has_map(each)
            and not self.init_problem(each, teacher_layers)
        )
        return sum(_count_maps(mapped, teacher_layers).values()) or 1

    def depths(self) -> list[int]:
        """Returns the depths of carved students that can be drawn."""
        return sorted({settings.student.depth for settings in self._carved()})

    @property
    def start_models(self) -> list[str]:
        """The models in student.init."""
        students = [settings.student for settings in self.shapes()]
        return sorted({student.init for student in students if student.starts_from_model})

    def _carved(self) -> Iterator[SpaceSettings]:
        """Yields the shapes of students that do not start from a given model."""
        return (shape for shape in self.shapes() if shape.student.init not in self.init_models)

    def _with_losses(self) -> Iterator[SpaceSettings]:
        """Yields the settings for every combination of init, layer map and kind of losses."""
        named = [
            (name, (dist.middle,) if isinstance(dist, Numbers) else dist.probes)
            for name, dist in self.distributions().items()
            if name.split(".")[0] in ("layer_map", "losses") or name in ("student", "student.init")
        ]
        combinations = itertools.product(*(values for _, values in named))
        for values in itertools.islice(combinations, _MAX_COMBINATIONS):
            with contextlib.suppress(SpecError):  # a combination that no trial can have
                yield self.resolve(picking(dict(zip((n for n, _ in named), values, strict=True))))

    def shapes(self) -> Iterator[SpaceSettings]:
        """Yields the settings for every combination of student and layer map."""
        names = [
            (name, dist)
            for name, dist in self.distributions().items()
            if name.split(".")[0] in ("student", "layer_map")
        ]
        combinations = itertools.product(*(dist.probes for _, dist in names))
        for values in itertools.islice(combinations, _MAX_COMBINATIONS):
            picked = dict(zip((name for name, _ in names), values, strict=True))
            yield self.resolve(picking(picked))


def _count_maps(shapes: Iterable[SpaceSettings], teacher_layers: int) -> dict[int, int]:
    """Returns the number of different layer maps for each depth."""
    seen: dict[int, set[tuple[str, int]]] = {}
    for settings in shapes:
        depth, layer_map = settings.student.depth, settings.layer_map
        pins = {
            "pin_embeddings": layer_map.pin_embeddings,
            "pin_last": layer_map.pin_last,
        }
        number = 1
        for entries in (layer_map.word, layer_map.layer):
            if isinstance(entries, str) and entries not in ("same", "random"):
                number *= count_maps(entries, teacher_layers, depth, **pins)
        seen.setdefault(depth, set()).add((layer_map.model_dump_json(), number))
    return {depth: sum(n for _, n in maps) for depth, maps in sorted(seen.items())}


def resolve_layer_map(
    settings: LayerMapSettings,
    suggester: Suggester,
    teacher_layers: int,
    depth: int,
    *,
    listed: bool = False,
) -> ResolvedLayerMap:
    """Returns the layer maps of one trial; searched maps are drawn.

    Args:
        settings: The layer maps as in the space.
        suggester: Draws searched maps.
        teacher_layers: The teacher's number of encoder layers.
        depth: The student's number of encoder layers.
        listed: Whether to draw searched maps by their index, for an exhaustive search.
    """
    pins = {"pin_embeddings": settings.pin_embeddings, "pin_last": settings.pin_last}

    def one(wanted: str | list[int], name: str) -> Any:
        if not isinstance(wanted, str):
            return tuple(wanted)
        if wanted in PRESETS:
            return preset_map(wanted, teacher_layers, depth)
        if listed and wanted in SEARCHED:
            return draw_listed(suggester, name, wanted, teacher_layers, depth, **pins)
        if wanted == "monotone":
            return draw_monotone(suggester, name, teacher_layers, depth, **pins)
        if wanted == "free":
            return draw_free(suggester, name, teacher_layers, depth, **pins)
        return wanted

    word = one(settings.word, "layer_map.word")
    layer = word if settings.layer == "same" else one(settings.layer, "layer_map.layer")
    return ResolvedLayerMap(word=word, layer=layer, **pins)


def picking(picked: Mapping[str, Any]) -> Pick:
    """Returns a function that picks these values by name, and the first probe of all others."""
    return lambda name, dist: picked.get(name, dist.probes[0])


def _with_leaf(tree: Mapping[str, Any], path: KeyPath, value: Any) -> dict[str, Any]:
    key, *others = map(str, path)
    if not others:
        return {**tree, key: value}
    block = tree.get(key)
    block = block if isinstance(block, Mapping) else long_form(key, block)
    return {**tree, key: _with_leaf(block, tuple(others), value)}


def _resolved(tree: Any, path: KeyPath, pick: Pick) -> Any:
    if isinstance(tree, Distribution):
        # A drawn option may be a block that contains distributions.
        return _resolved(pick(dotted(path), tree), path, pick)
    if isinstance(tree, Mapping):
        return {key: _resolved(value, (*path, str(key)), pick) for key, value in tree.items()}
    return tree


def distributions_in(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Distribution]]:
    """Yields each distribution in a tree of settings with its path, also those in options.

    Args:
        tree: The tree, or the part of it at `path`.
        path: The path of that part.
    """
    if isinstance(tree, Distribution):
        yield path, tree
        for option in tree.probes:
            if isinstance(option, Mapping):
                yield from distributions_in(option, path)
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from distributions_in(value, (*path, str(key)))
