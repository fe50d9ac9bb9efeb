"""The reference of all settings of a space file, generated from the settings."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from lkd_tune.config.settings.space_settings import SpaceSettings


def settings_reference(
    model: type[BaseModel] = SpaceSettings, prefix: str = ""
) -> list[tuple[str, str, str, str]]:
    """Returns (key, type, default, meaning) of every setting."""
    rows = []
    for name, field in model.model_fields.items():
        inner = _block(field.annotation)
        if inner is not None:
            rows += settings_reference(inner, f"{prefix}{name}.")
            continue
        default = "needed" if field.is_required() else _default_text(field.default)
        meaning = " ".join((field.description or "").split())
        rows.append((prefix + name, _type_text(field.annotation), default, meaning))
    return rows


def _block(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _type_text(annotation: Any) -> str:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return {"str": "text", "int": "integer", "float": "number", "bool": "true/false"}.get(
            annotation.__name__, annotation.__name__
        )
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if all(isinstance(argument, str | int) for argument in arguments):
        return ", ".join(map(str, arguments))
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type_text(arguments[0])}"
    return " or ".join(dict.fromkeys(_type_text(a) for a in arguments if not hasattr(a, "ge")))


def _default_text(default: Any) -> str:
    if isinstance(default, tuple):
        return ", ".join(map(str, default)) or "none"
    return {True: "true", False: "false", None: "none"}.get(default, str(default)) if (
        isinstance(default, bool) or default is None
    ) else str(default)  # fmt: skip
