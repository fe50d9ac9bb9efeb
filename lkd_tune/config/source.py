"""A space file as YAML, with the line of each key and the overrides of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.settings.trackers import block_of_names

KeyPath = tuple[str | int, ...]
# The beginning of the place of a setting that an override sets.
_OVERRIDE = "--set "

# The setting that a scalar in place of a block sets: `task: cola` is `task: {name: cola}`.
SHORTHAND = {
    "task": "name",
    "teacher": "model",
    "layer_map": "word",
    "evaluate_on": "task",
    "losses": "recipe",
}


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 5e-5 is a number, as in YAML 1.2; PyYAML's 1.1 reads it as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


@dataclass
class Source:
    """The tree of settings as the user wrote it, with the place of each setting.

    Attributes:
        name: The file's name, for messages.
        tree: Nested dicts, lists and scalars, with overrides applied.
        places: `layer_map.yaml:14` or `--set train.lr` for each path in the tree.
    """

    name: str
    tree: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: Sequence[str | int]) -> str:
        """Returns the place of `path`, or of its nearest parent that was written.

        Of a block, that is the line of the file and the overrides that changed the block.
        """
        written = (tuple(path[:length]) for length in range(len(path), 0, -1))
        where = next((self.places[key] for key in written if key in self.places), self.name)
        inside = [
            place
            for key, place in self.places.items()
            if key[: len(path)] == tuple(path) != key and place.startswith(_OVERRIDE)
        ]
        return " with ".join(dict.fromkeys([where, *inside]))

    def problem(self, path: Sequence[str | int], message: str) -> Problem:
        """Returns a `Problem` at `path`."""
        return Problem(self.place(path), dotted(path), message)


def dotted(path: Sequence[str | int]) -> str:
    """Returns ('train', 'lr') as 'train.lr'."""
    return ".".join(str(part) for part in path)


def read_source(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Returns the settings in a YAML file with `key.path=value` overrides applied.

    Raises:
        SpecError: If the file can't be read, is not YAML or not a mapping, repeats a key, or if
            an override is malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(Problem(str(path), "", f"can't be read: {error}")) from None
    source = parse_source(text, path.name)
    for override in overrides:
        apply_override(source, override)
    return source


def parse_source(text: str, name: str) -> Source:
    """Returns the settings in a YAML text.

    Raises:
        SpecError: As `read_source`.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        places: dict[KeyPath, str] = {}
        if node is not None:
            _note_places(node, (), name, places)
        tree = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise SpecError(Problem(f"{name}:{line}", "", f"not valid YAML: {problem}")) from None
    except yaml.YAMLError as error:
        raise SpecError(Problem(name, "", f"not valid YAML: {error}")) from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        found = type(tree).__name__
        raise SpecError(Problem(f"{name}:1", "", f"needs a mapping of settings, not a {found}"))
    return Source(name, tree, places)


def _note_places(node: yaml.Node, path: KeyPath, name: str, places: dict[KeyPath, str]) -> None:
    places.setdefault(path, f"{name}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*path, str(key.value))
            if child in places:
                # PyYAML would silently let the last one win.
                where = f"{name}:{key.start_mark.line + 1}"
                raise SpecError(Problem(where, dotted(child), f"is already set at {places[child]}"))
            places[child] = f"{name}:{key.start_mark.line + 1}"
            _note_places(value, child, name, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_places(value, (*path, index), name, places)


def long_form(name: str, value: Any) -> dict[str, Any]:
    """Returns the block that a short form abbreviates."""
    if value is None or value is True:
        return {}
    if name == "trackers":
        return block_of_names(value)
    return {SHORTHAND.get(name, "weight"): value}


def apply_override(source: Source, override: str) -> None:
    """Sets one leaf or block from `key.path=value`; the value is read as YAML.

    Raises:
        SpecError: If there is no `=`, the value is not YAML, or the path leads through a list.
    """
    key, equals, text = override.partition("=")
    where = f"{_OVERRIDE}{key}"
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise SpecError(Problem(f"--set {override}", "", "is not of the form key.path=value"))
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise SpecError(Problem(where, "", f"{text!r} is not a YAML value")) from None
    block: dict[str, Any] = source.tree
    for depth, part in enumerate(path[:-1]):
        inner = block.get(part)
        if not isinstance(inner, Mapping):
            inner = block[part] = long_form(part, inner)
        elif len(inner) == 1 and next(iter(inner)) in ("choice", "uniform", "loguniform", "int"):
            message = f"{dotted(path[: depth + 1])} is a distribution; replace all of it"
            raise SpecError(Problem(where, "", message))
        block = inner  # type: ignore[assignment]
    block[path[-1]] = value
    for old in [place for place in source.places if place[: len(path)] == path]:
        del source.places[old]
    source.places[path] = where
