"""The search space: a tree of settings in which any leaf may be a distribution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lkd_tune.config.distributions import (
    Distribution,
    Suggester,
    looks_like_distribution,
    parse_distribution,
)
from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.loss_scales import LossScales, term_variants
from lkd_tune.config.retired import find_retired, without_retired
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
from lkd_tune.config.settings.width import Width, width_problems, with_width
from lkd_tune.config.source import KeyPath, Source, dotted, read_source
from lkd_tune.config.trial import ResolvedLayerMap, TrialSpec
from lkd_tune.config.uri import is_uri, uri_problem
from lkd_tune.config.validation import validation_problems

# The blocks in which trials may differ; all others are the same for all trials of a run.
SEARCHABLE = ("student", "layer_map", "losses", "train")
_MAX_COMBINATIONS = 2000
_MAX_GRID_POINTS = 100_000

_WRONG = object()  # Replaces a distribution that could not be parsed.

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
    """

    source: Source
    tree: dict[str, Any]
    settings: SpaceSettings
    teacher_width: Width | None = None
    loss_scales: LossScales | None = None

    def draw(
        self, suggester: Suggester, *, teacher: str | None, teacher_layers: int, seed: int
    ) -> TrialSpec:
        """Returns the settings of one trial.

        Args:
            suggester: An `optuna.Trial`, or anything that draws by name.
            teacher: Folder or hub id of the trained teacher.
            teacher_layers: Its number of encoder layers.
            seed: The trial's seed.

        Raises:
            SpecError: If the drawn settings are invalid; this does not happen if
                `check_teacher` has passed.
        """
        settings = self.resolve(lambda name, dist: dist.draw(name, suggester))
        layer_map = resolve_layer_map(
            settings.layer_map,
            suggester,
            teacher_layers,
            settings.student.depth,
            listed=settings.search.is_exhaustive,
        )
        return TrialSpec(
            task=settings.task,
            teacher=teacher,
            inference=settings.teacher.inference,
            student=with_width(settings.student, self.teacher_width),
            layer_map=layer_map,
            losses=settings.losses,
            loss_scales=self._scales_of(settings.losses),
            train=settings.train,
            targets=settings.targets,
            resources=settings.resources,
            evaluate_on=settings.evaluate_on,
            seed=seed,
        )

    def _scales_of(self, losses: LossSettings) -> dict[str, float]:
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
        return term_variants(distributions, lambda picked: self.resolve(_picking(picked)).losses)

    def resolve(self, pick: Pick) -> SpaceSettings:
        """Returns the settings with `pick(name, distribution)` in place of each distribution.

        Raises:
            SpecError: If they are invalid.
        """
        tree = _resolved(self.tree, (), pick)
        try:
            return SpaceSettings.model_validate(tree)
        except ValidationError as error:
            raise SpecError(validation_problems(error, self.source)) from None

    def check_teacher(self, teacher_layers: int) -> None:
        """Checks every depth, layer map and list of layers against the teacher's depth.

        Raises:
            SpecError: With all values that do not fit.
        """
        too_deep: set[int] = set()
        misfits: dict[tuple[KeyPath, str], dict[int, str]] = {}
        for settings in self.shapes():
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
        return {dotted(path): dist for path, dist in _distributions(self.tree, ())}

    def layer_map_counts(self, teacher_layers: int) -> dict[int, int]:
        """Returns the number of different layer maps for each student depth."""
        seen: dict[int, set[tuple[str, int]]] = {}
        for settings in self.shapes():
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

    def size(self, teacher_layers: int) -> float:
        """Returns the number of different trials; infinity if any parameter is continuous."""
        maps = self.layer_map_counts(teacher_layers)
        others = [
            dist.size
            for name, dist in self.distributions().items()
            if name != "student.depth" and not name.startswith("layer_map")
        ]
        return math.prod(others) * sum(maps.values())

    def depths(self) -> list[int]:
        """Returns the student depths that can be drawn."""
        return sorted({settings.student.depth for settings in self.shapes()})

    @property
    def start_models(self) -> list[str]:
        """The models in student.init."""
        students = [settings.student for settings in self.shapes()]
        return sorted({student.init for student in students if student.starts_from_model})

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
            yield self.resolve(_picking(picked))


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


def load_space(path: Path, overrides: Sequence[str] = ()) -> SearchSpace:
    """Returns the checked space in a YAML file, with `key.path=value` overrides applied.

    Raises:
        SpecError: With all problems of the file: unknown keys, invalid values, invalid
            distributions, distributions where they are not allowed.
    """
    return build_space(read_source(path, overrides))


def build_space(source: Source) -> SearchSpace:
    """Returns the checked space that a source describes.

    Raises:
        SpecError: As `load_space`.
    """
    wrong = _uri_problems(source.tree, (), source) | _retired(source)
    tree = _parsed(source.tree, (), source, wrong)
    distributions = list(_distributions(tree, ()))
    # Each end and option is tried once, with the first value of all other distributions.
    space = SearchSpace(source, tree, settings=None)  # type: ignore[arg-type]
    found: dict[str, Problem] = {}
    tried: list[SpaceSettings] = []
    for path, dist in [((), None), *distributions]:
        for value in dist.probes if dist else (None,):
            try:
                tried.append(space.resolve(_picking({dotted(path): value})))
            except SpecError as error:
                found.update((str(problem), problem) for problem in error.problems)
        if found and not path:
            break  # These problems do not depend on any distribution and would be repeated.
    # Invalid distributions were left out, so their settings seem to be missing.
    others = [
        problem
        for problem in found.values()
        if not any(problem.key == dotted(path) for path in wrong)
    ]
    problems = [*wrong.values(), *others] or _ambiguous(distributions, source)
    if problems := problems or _ends_nothing(tried, source):
        raise SpecError(problems)
    space.settings = tried[-1]
    if problems := _balances_one_term(space):
        raise SpecError(problems)
    return space


def _balances_one_term(space: SearchSpace) -> list[Problem]:
    """Returns a problem if terms are to be balanced, but all trials have the same single one."""
    terms = [*space.balanced_terms()]
    if len(terms) != 1:
        return []
    message = (
        f"gradient balances terms with each other, but {terms[0]} is the only term that a trial of "
        "this space can have; use none, or give another term a weight"
    )
    return [space.source.problem(("losses", "balance"), message)]


def load_recorded_space(path: Path) -> SearchSpace:
    """Returns the space in a run folder, to read the run; also one of an earlier version.

    Raises:
        SpecError: As `load_space`.
    """
    source = read_source(path)
    source.tree = without_retired(source.tree)
    return build_space(source)


def _retired(source: Source) -> dict[KeyPath, Problem]:
    """Returns a problem for each value that its setting no longer takes."""
    return {
        path: Problem(
            source.place(path), dotted(key), f"{retired.value} was removed: {retired.advice}"
        )
        for path, key, retired in find_retired(source.tree)
    }


def _uri_problems(tree: Any, path: KeyPath, source: Source) -> dict[KeyPath, Problem]:
    """Returns the problems of URIs of object stores, such as a secret in one."""
    if isinstance(tree, str) and is_uri(tree) and (problem := uri_problem(tree)):
        return {path: source.problem(path, problem)}
    wrong: dict[KeyPath, Problem] = {}
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            wrong |= _uri_problems(value, (*path, key), source)
    return wrong


def _ambiguous(
    distributions: Iterable[tuple[KeyPath, Distribution]], source: Source
) -> list[Problem]:
    """Returns a problem for each setting that has different distributions in options of a choice.

    A study has one distribution for each name, so a sampler would confuse them.
    """
    first: dict[str, Distribution] = {}
    problems = {}
    for path, dist in distributions:
        name = dotted(path)
        if first.setdefault(name, dist) != dist:
            message = (
                f"two options of a choice give it different distributions ({first[name]}; {dist}); "
                "use the same distribution in all options, or move it out of the choice"
            )
            problems[name] = source.problem(path, message)
    return [*problems.values()]


def _ends_nothing(tried: Iterable[SpaceSettings], source: Source) -> list[Problem]:
    """Returns a problem if `losses.relations_until` has no effect in any trial of a space.

    A space that searches the weights may draw trials without relations. They ignore the setting.

    Args:
        tried: The settings with each option of the space.
        source: The space as written.
    """
    losses = [settings.losses for settings in tried]
    if all(each.relations_until == 1 for each in losses):
        return []
    path = ("losses", "relations_until")
    terms = {name for each in losses for name, _ in each.active()}
    if terms == {"logits"}:
        return [source.problem(path, "there is no relation to end; leave it out")]
    if "logits" not in terms:
        message = "nothing is left to train on, as losses.logits has weight 0; set it above 0"
        return [source.problem(path, message)]
    return []


def _picking(picked: Mapping[str, Any]) -> Pick:
    """Returns a function that picks these values by name, and the first probe of all others."""
    return lambda name, dist: picked.get(name, dist.probes[0])


def _parsed(tree: Any, path: KeyPath, source: Source, wrong: dict[KeyPath, Problem]) -> Any:
    """Returns the tree with distributions parsed; invalid ones are added to `wrong` and left
    out."""
    if looks_like_distribution(tree):
        if path and path[0] not in SEARCHABLE:
            message = f"can't be searched; distributions are allowed in {', '.join(SEARCHABLE)}"
            wrong[path] = source.problem(path, message)
            return _WRONG
        try:
            return parse_distribution(
                {
                    key: _parsed_option(key, value, path, source, wrong)
                    for key, value in tree.items()
                }
            )
        except ValueError as error:
            wrong[path] = source.problem(path, str(error))
            return _WRONG
    if isinstance(tree, Mapping):
        parsed = {
            str(key): _parsed(value, (*path, str(key)), source, wrong)
            for key, value in tree.items()
        }
        return {key: value for key, value in parsed.items() if value is not _WRONG}
    return tree


def _parsed_option(
    key: str, value: Any, path: KeyPath, source: Source, wrong: dict[KeyPath, Problem]
) -> Any:
    if key != "choice" or not isinstance(value, list):
        return value
    options = (_parsed(option, (*path, key, i), source, wrong) for i, option in enumerate(value))
    return [option for option in options if option is not _WRONG]


def _resolved(tree: Any, path: KeyPath, pick: Pick) -> Any:
    if isinstance(tree, Distribution):
        # A drawn option may be a block that contains distributions.
        return _resolved(pick(dotted(path), tree), path, pick)
    if isinstance(tree, Mapping):
        return {key: _resolved(value, (*path, str(key)), pick) for key, value in tree.items()}
    return tree


def _distributions(tree: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Distribution]]:
    if isinstance(tree, Distribution):
        yield path, tree
        for option in tree.probes:
            if isinstance(option, Mapping):
                yield from _distributions(option, path)
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _distributions(value, (*path, str(key)))
