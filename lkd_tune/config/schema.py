"""The JSON Schema of space files, with which editors complete and check them.

It is pydantic's schema of the settings with one addition: where a space can be searched, a
distribution may replace a value. The schema can't express rules about several settings;
`lkd-tune check` checks those.
"""

from __future__ import annotations

from typing import Any

from lkd_tune.config.settings.space_settings import SpaceSettings
from lkd_tune.config.space import SEARCHABLE

Schema = dict[str, Any]

# Keywords that apply to a setting in each form of its value.
_ABOUT = ("title", "description", "default")
_LOG: Schema = {"type": "boolean", "description": "Drawn on a log scale."}


def space_schema() -> Schema:
    """Returns the schema in draft 7, which YAML editors support."""
    schema = SpaceSettings.model_json_schema()
    definitions = schema.pop("$defs")
    opened: set[str] = set()
    for name in SEARCHABLE:
        schema["properties"][name] = _open(schema["properties"][name], definitions, opened)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "title": "lkd-tune space file",
        "description": "A search space: `lkd-tune search --space FILE`.",
        "$defs": definitions,
    }


def _open(node: Schema, definitions: dict[str, Schema], opened: set[str]) -> Schema:
    """Returns a setting's schema with distributions allowed, also in the blocks it refers to.

    Args:
        node: The schema of the setting.
        definitions: The blocks by name; distributions are added to those that `node` refers to.
        opened: Names of the blocks that allow distributions already.
    """
    forms = node.get("anyOf", [{key: node[key] for key in node if key not in _ABOUT}])
    for form in forms:
        name = form.get("$ref", "").rpartition("/")[2]
        if name and name not in opened:
            opened.add(name)
            block = definitions[name]["properties"]
            for key in block:
                block[key] = _open(block[key], definitions, opened)
    about = {key: node[key] for key in _ABOUT if key in node}
    return {**about, "anyOf": [*forms, *_distributions(forms)]}


def _distributions(forms: list[Schema]) -> list[Schema]:
    """Returns the schemas of the distributions that may replace a value of one of these forms."""
    # An option is a value; a block may contain distributions.
    options = {"type": "array", "items": {"anyOf": forms}, "minItems": 1, "uniqueItems": True}
    found = [_block("choice", options)]
    for form in forms:
        if form.get("type") not in ("number", "integer"):
            continue
        end = {key: value for key, value in form.items() if key not in _ABOUT}
        if end["type"] == "number":
            found.append(_block("uniform", _ends(end), step=_step("number"), log=_LOG))
            # A log scale has no step.
            above_0 = {**end, "exclusiveMinimum": 0}
            found.append(_block("loguniform", _ends(above_0), log=_LOG))
        whole = {**end, "type": "integer"}
        found.append(_block("int", _ends(whole), step=_step("integer"), log=_LOG))
    return found


def _ends(end: Schema) -> Schema:
    return {
        "type": "array", "items": end, "minItems": 2, "maxItems": 2,
        "description": "[lo, hi], both included.",
    }  # fmt: skip


def _step(kind: str) -> Schema:
    return {"type": kind, "exclusiveMinimum": 0, "description": "Between two values."}


def _block(kind: str, value: Schema, **others: Schema) -> Schema:
    return {
        "title": kind,
        "type": "object",
        "properties": {kind: value, **others},
        "required": [kind],
        "additionalProperties": False,
    }
