"""Converts pydantic's errors to problems with a place, a rule and a way to fix them."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lkd_tune.config.errors import Problem, did_you_mean
from lkd_tune.config.reference import settings_reference
from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.source import KeyPath, Source, dotted


def validation_problems(error: ValidationError, source: Source) -> list[Problem]:
    """Returns one problem for each invalid setting, in the order of pydantic's errors."""
    grouped: dict[KeyPath, list[Any]] = {}
    for detail in error.errors():
        grouped.setdefault(_field_path(detail["loc"], detail["type"]), []).append(detail)
    return [source.problem(path, _message(path, details)) for path, details in grouped.items()]


def _message(path: KeyPath, details: list[Any]) -> str:
    first = details[0]
    if first["type"] == "extra_forbidden":
        allowed = list(_fields_at(path[:-1]))
        block = dotted(path[:-1]) or "a space file"
        near = _elsewhere(str(path[-1])) or did_you_mean(str(path[-1]), allowed)
        return f"unknown setting{near}; {block} has {', '.join(allowed)}"
    if first["type"] == "missing":
        return "is required; it has no default"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    literals = [detail for detail in details if detail["type"] == "literal_error"]
    if literals:
        allowed = [
            word.strip("'")
            for detail in literals
            for word in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")
        ]
        near = did_you_mean(str(first["input"]), allowed)
        also = ", or a list of layers" if len(details) > len(literals) else ""
        return f"found {first['input']!r}{near}; allowed: {', '.join(allowed)}{also}"
    if isinstance(first["input"], BaseModel | dict):
        return first["msg"]
    return f"{first['msg'][0].lower()}{first['msg'][1:]}, found {first['input']!r}"


def _elsewhere(name: str) -> str:
    """Returns ' (did you mean …?)' with the setting of this name in another block; '' if none."""
    found = [key for key, *_ in settings_reference() if key.rpartition(".")[2] == name]
    # `epochs` is rather that of the students than that of a teacher which is trained first.
    return f" (did you mean {min(found, key=lambda key: key.count('.'))}?)" if found else ""


def _field_path(loc: tuple[str | int, ...], kind: str) -> KeyPath:
    """Returns the settings in a location of pydantic, without its tags of unions."""
    path: KeyPath = ()
    for part in loc:
        if part not in _fields_at(path):
            return (*path, part) if kind == "extra_forbidden" else path
        path = (*path, part)
    return path


def _fields_at(path: KeyPath) -> dict[str, Any]:
    """Returns the fields of the block at `path`; {} if it is a leaf."""
    model: type[BaseModel] | None = SpaceSettings
    for part in path:
        field = model.model_fields.get(str(part)) if model else None
        model = _model_in(field.annotation) if field else None
    return dict(model.model_fields) if model else {}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Returns the settings block in an annotation such as `Block | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
